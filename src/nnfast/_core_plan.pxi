# What the threads of a fit are given: the list of operations that _plan.py made of a network, and what goes with it.

# What an operation does. "Gradient" is that of the loss, with respect to what the forward operation gave.
cdef enum Code:
    # by rows
    GATHER              # y = rows of the data
    PRODUCT             # y = x @ weights + bias (none where bias is -1)
    RELU                # y in place
    LEAKY_RELU          # y in place, slope
    SIGMOID             # y in place
    TANH                # y in place
    GELU                # y = gelu(x)
    COPY                # y = x
    DROPOUT             # y = x where kept, else 0
    RESCALE             # y in place, times weights, plus bias (none where that is -1)
    SOFTMAX_LOSS        # y = gradient of the mean cross-entropy of softmax(x); smoothing of the labels
    SIGMOID_LOSS        # y = gradient of the mean cross-entropy of sigmoid(x)
    IDENTITY_LOSS       # y = gradient of the mean squared error of x
    ABSOLUTE_LOSS       # y = gradient of the mean of a loss of x - t (_core_regression.pxi), with parameters in array
    HUBER_LOSS
    QUANTILE_LOSS
    POISSON_LOSS        # y = gradient of the mean deviance of exp(x)
    RELU_BACKWARD       # y: the gradient, in place; x: what the forward operation gave
    LEAKY_RELU_BACKWARD
    SIGMOID_BACKWARD
    TANH_BACKWARD
    GELU_BACKWARD       # x: what the forward operation took
    DROPOUT_BACKWARD
    # by columns
    BATCH_NORMALIZATION             # y = gamma * xn + beta
    BATCH_NORMALIZATION_BACKWARD    # y: the gradient, in place; gamma and beta are updated
    # by tiles
    UPDATE              # weights and bias, from the input x and the gradient y
    # by rows of weights, where they are not in panels yet
    PACK                # weights and bias of the user's into panels
    # only in inference (_core_inference.pxi)
    SCALE               # y in place, factor
    NORMALIZE           # y in place, by running statistics

_CODES = (
    "GATHER", "PRODUCT", "RELU", "LEAKY_RELU", "SIGMOID", "TANH", "GELU", "COPY", "DROPOUT", "RESCALE",
    "SOFTMAX_LOSS", "SIGMOID_LOSS", "IDENTITY_LOSS", "ABSOLUTE_LOSS", "HUBER_LOSS", "QUANTILE_LOSS", "POISSON_LOSS",
    "RELU_BACKWARD", "LEAKY_RELU_BACKWARD", "SIGMOID_BACKWARD", "TANH_BACKWARD", "GELU_BACKWARD", "DROPOUT_BACKWARD",
    "BATCH_NORMALIZATION", "BATCH_NORMALIZATION_BACKWARD", "UPDATE", "PACK", "SCALE", "NORMALIZE",
)
OPERATION_CODES = {name: code for code, name in enumerate(_CODES)}

cdef struct Operation:
    int64_t code
    int64_t inputs, outputs     # columns of x and y, padding left out
    # Offsets into the arena, in elements
    int64_t x, x_row            # and elements from one row to the next; -1 where x is the data itself
    int64_t y, y_row
    int64_t weights, bias       # of batch normalisation: gamma and beta; of rescaling: scale and offset
    int64_t transposed          # weights for the gradient with respect to x, -1 where nobody needs it
    int64_t state, bias_state   # the optimiser's; a second one follows each, like weights and bias in size
    int64_t normalized          # xn of batch normalisation
    int64_t statistics          # mean, variance, std, running mean, running variance; then the gradients of gamma, beta
    int64_t looks_for_zeros     # x is data, which may be sparse (_core_zeros.pxi)
    int64_t number              # of dropout: which of the keys,
    int64_t mask                # or, unless it is -1, the first of its columns in the masks that were drawn beforehand
    # Of the user's weights to pack, or where their gradients go, or of a loss's parameters, float64 for each output:
    # which of the arrays and, in compiled code, addresses
    int64_t array, bias_array
    # Where an update keeps them until their norm, or their sum over ranks, is known; of batch normalisation, where its
    # own sums over ranks are made (_core_ranks.pxi): those of x or dy, and those of squares or of dy * xn
    int64_t gradient, bias_gradient
    double setting              # slope, dropout ratio, momentum, smoothing

cdef enum Rule:
    SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM
    GRADIENT    # gradients go to the user's arrays, and nothing is updated

_RULES = ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "gradient")
OPTIMIZER_RULES = {name: rule for rule, name in enumerate(_RULES)}

cdef struct Optimizer:
    int64_t rule
    int64_t updates             # so far
    int64_t has_limit, has_norm_limit
    double first, second        # momentum, decay rate; beta1 and beta2
    double weight_decay         # of AdamW
    double epsilon              # of Adam, added to the root
    double limit                # of each element of a gradient, to either side; or of the norm of all gradients

cdef struct StepSettings:
    double lr                   # learning rate
    double weight               # of its rows together
    double l2, l1               # strength of the penalties on weights
    double loss_share, penalty_share    # that the sum of its losses, and the penalty, have in the epoch's loss
    double least_probability    # of which a logarithm is taken, scikit-learn's way; 0: the book's, 1e-7 is added

cdef struct Progress:
    # Of the epochs that a call is to train: where it is, and what the steps of this epoch gave so far
    int64_t epoch, step         # the next ones
    int64_t correct             # rows classified right
    double loss                 # summed over steps, by their shares
    int64_t is_finite           # the data, if they are checked, the last loss and, at the end of an epoch, the weights

cdef struct Share:
    # What a rank takes of a batch that is divided among ranks
    int64_t rows, first         # in its own order, that of an epoch
    int64_t place               # of the first of them in the batch
    int64_t together            # rows of the batch

cdef struct Training:
    const Operation* operations
    Py_ssize_t count
    const void* x               # data, contiguous rows
    int held                    # what they are
    bint converts               # not of the arena's dtype
    Py_ssize_t inputs, row_bytes
    bint fetches_ahead          # rows of the next batch, during an update
    const int64_t* order        # rows of the data, batch after batch, epoch after epoch; NULL: as they come
    bint* is_outside            # whether some row or label is none
    const int64_t* labels       # of all the data
    const void* targets         # likewise, where the loss takes no labels
    const uint64_t* keys        # of dropout's masks, a row of them a step
    Py_ssize_t dropouts
    const uint8_t* masks        # drawn beforehand: (steps, batch_size, mask_row), from first_step on; or NULL
    Py_ssize_t mask_row
    Py_ssize_t first_step, most_steps   # of this call
    Py_ssize_t data_rows        # that there are
    Py_ssize_t rows, batch_size, steps, epochs      # of an epoch, and how many of them
    Py_ssize_t block_rows       # that go through the layers at a time
    Py_ssize_t group            # panels for which a copy of x is used in an update
    Py_ssize_t scratch, scratch_size    # of each thread in the arena
    const Optimizer* optimizer
    const StepSettings* settings        # of each step of each epoch
    const double* weights       # of the rows of the data; NULL: all are 1
    double* losses              # of the rows of a batch
    int32_t* correct
    double* penalties           # of each tile of weights
    double* squares             # of each tile's gradient, summed
    bint keeps                  # gradients, until all of them are known
    const Share* shares         # of each batch of an epoch, this rank's; NULL: all of it
    double* sums                # over ranks, of batch normalisations
    void* note                  # beside the gradients: not 0 where some rank wants all to stop after the step
    bint by_operation           # gradients are summed one operation's after the other's
    void* finished              # what the weights and states were at the end of the last epoch; NULL if not asked for
    Py_ssize_t size             # of weights and states together
    double* epoch_losses        # of each epoch that was finished
    int64_t* epoch_correct
    Progress* progress          # the first thread's to change
    bint stops
    bint lost                   # the last loss is not finite; nobody changes it while others may read it
    bint has_odd_weights        # some weight that was packed is NaN or infinite
    bint checks_data            # whether it is finite: in the first epoch of a call, which sees all of it
    bint has_odd_data           # it is not
    int64_t deadline    # of nnfast_clock
    nnfast_team team

cdef struct Batch:
    Py_ssize_t step             # since the call's first epoch began
    Py_ssize_t first, rows      # in order
    Py_ssize_t place, together  # of the first row in all of the batch, and rows of that
    bint checks_data
    StepSettings settings


cdef inline bint _is_penalized(const Batch* batch) noexcept nogil:
    return batch.settings.l2 != 0 or batch.settings.l1 != 0


cdef inline double _divisor(const Batch* batch) noexcept nogil:
    """Of the rows' losses, for their mean. Where no row weighs anything, all gradients are 0."""
    return batch.settings.weight if batch.settings.weight > 0 else 1.


cdef inline Py_ssize_t _data_row(const Training* training, Py_ssize_t place) noexcept nogil:
    """Which row of the data a place in the order means."""
    return place if training.order == NULL else _inside(training.order[place], training.data_rows, training.is_outside)
