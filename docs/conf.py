"""How Sphinx builds the site: `make docs`.

The tour is `steps/`, and the examples are `examples/`, both of which sphinx-gallery runs; the reference is made from the docstrings.
"""

import sys

import nnfast

project = "nnfast"
author = copyright = "the nnfast authors"
version = release = nnfast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx.ext.viewcode", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "steps", "examples"]
html_theme = "furo"
html_title = f"nnfast {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]

# The docstrings are numpydoc's, and a name between single backticks is a link where it can be one.
default_role = "py:obj"
numpydoc_show_class_members = False         # autodoc lists them
autodoc_member_order = "bysource"
autodoc_typehints = "none"


def mnist_is_there() -> bool:
    """Whether the last step can run: MNIST is found, or else downloaded."""
    try:
        nnfast.load_mnist(download=True)
    except OSError as error:
        print(f"the step with MNIST is shown, but not run: {error}", file=sys.stderr)
        return False
    return True


sphinx_gallery_conf = {
    "examples_dirs": ["steps", "examples"],
    "gallery_dirs": ["tour", "gallery"],
    "filename_pattern": r"/examples/|/\d\d_" if mnist_is_there() else r"/examples/|/\d\d_(?!mnist)",
    "within_subsection_order": "FileNameSortKey",
    "run_stale_examples": True,         # the library may have changed where the step has not
    "abort_on_example_error": True,
    "doc_module": ("nnfast",),
    "capture_repr": (),                 # the scripts print what there is to say
    "backreferences_dir": None,
    "matplotlib_animations": False,
    "show_memory": False,
    "write_computation_times": False,    # each page has its own
}
