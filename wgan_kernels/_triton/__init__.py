"""The operators on Triton kernels, named `<op>_triton`. Imported on first use only, as importing triton takes time."""
