"""The kernels as Python sees them: the structures of `decoder.cpp` and `head.h`, field for field, and its functions."""

import ctypes
from ctypes import POINTER, c_double, c_float, c_int32, c_void_p
from pathlib import Path


class Matrix(ctypes.Structure):
    _fields_ = (("values", c_void_p), ("scales", c_void_p))


class Layer(ctypes.Structure):
    _fields_ = (
        *((name, Matrix) for name in ("qkv", "out", "gate_up", "down")),
        *((name, c_void_p) for name in ("norm_in", "norm_post", "bias", "norm_query", "norm_key", "keys", "values")),
    )


class Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "inner", "vocab")),
        ("epsilon", c_float),
        ("layer", POINTER(Layer)),
        ("embedding", c_void_p),
        ("head", Matrix),
        *((name, c_void_p) for name in ("norm", "cosine", "sine")),
    )


class Chunk(ctypes.Structure):
    _fields_ = (("first_row", c_int32), ("num_rows", c_int32), ("position", c_int32), ("blocks", c_void_p))


class Figures(ctypes.Structure):
    _fields_ = (("best", c_int32), ("margin", c_float), ("entropy", c_float), ("log_total", c_float))


class Choice(ctypes.Structure):
    _fields_ = (
        ("temperature", c_float),
        ("top_p", c_float),
        ("min_p", c_float),
        ("top_k", c_int32),
        ("uniform", c_double),
    )


def load(path: Path) -> ctypes.CDLL:
    """The compiled library with its functions' types. They run without Python's global lock."""
    library = ctypes.CDLL(str(path))
    library.decoder_new.restype = c_void_p
    library.decoder_new.argtypes = (POINTER(Model), c_int32)
    library.decoder_delete.argtypes = (c_void_p,)
    library.decoder_use_threads.argtypes = (c_void_p, c_int32)
    library.decoder_forward.argtypes = (c_void_p, c_void_p, c_int32, c_void_p, c_int32)
    library.decoder_head.argtypes = (c_void_p, c_void_p, c_int32, c_void_p, c_void_p)
    library.decoder_choose.argtypes = (c_void_p, c_void_p, c_void_p, c_int32, c_void_p)
    for name in ("decoder_delete", "decoder_use_threads", "decoder_forward", "decoder_head", "decoder_choose"):
        getattr(library, name).restype = None
    return library
