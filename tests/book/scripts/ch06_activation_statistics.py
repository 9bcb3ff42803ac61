"""Chapter 6: how activations spread through five hidden layers, by activation function and initial weights."""

import numpy as np
from common.functions import relu, sigmoid

node_num = 100
hidden_layer_size = 5
scales = {"1": 1.0, "0.01": 0.01, "Xavier": np.sqrt(1.0 / node_num), "He": np.sqrt(2.0 / node_num)}

np.random.seed(62)
input_data = np.random.randn(1000, node_num)

for function in (sigmoid, np.tanh, relu):
    for scale_name, scale in scales.items():
        print(function.__name__ + ", weights of scale " + scale_name)
        x = input_data
        for i in range(hidden_layer_size):
            x = function(np.dot(x, scale * np.random.randn(node_num, node_num)))
            print(str(i + 1) + "-layer: mean " + str(x.mean()) + ", std " + str(x.std()))
