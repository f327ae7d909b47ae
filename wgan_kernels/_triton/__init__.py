"""The operators on Triton kernels, named `<op>_triton`. Imported on first use only, as importing triton takes time.

The first call of a dtype and a class of sizes times a short list of configurations, waiting for the device. All of a
list give the same bits, so that the choice shows nowhere but in time: not from one process or rank to the next, nor
between eager, compiled and captured calls. Nothing is timed while a CUDA graph is captured.
"""
