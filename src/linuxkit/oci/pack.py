"""Making a layer: plain tar bytes in, a compressed blob in the store out, with both digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Literal

from linuxkit.encode import libraries
from linuxkit.oci.media import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from linuxkit.oci.store import Store

Compression = Literal["gzip", "zstd", "none"]
TYPES: dict[Compression, str] = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD, "none": OCI_LAYER}


def put_layer(store: Store, tar: Iterable[bytes], *, compression: Compression = "gzip") -> tuple[Descriptor, str]:
    """Keep a layer.

    Args:
        tar: the archive in pieces of any size, the final zero blocks included.
        compression: zstd is smaller and quicker, gzip is read by everything.

    Returns:
        The blob's descriptor and the layer's diff id.

    Raises:
        HostError: the store cannot be written.
    """
    plain = hashlib.sha256()
    feed, finish = _compressor(compression)
    with store.write_blob(TYPES[compression]) as blob:
        for piece in tar:
            plain.update(piece)
            blob.write(feed(piece))
        blob.write(finish())
    return blob.descriptor, f"sha256:{plain.hexdigest()}"


def _compressor(compression: Compression) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if compression == "none":
        return bytes, bytes
    if compression == "zstd":
        z = libraries.zstd(3)
        return z.compress, z.flush
    g = libraries.Deflate(6, 31)  # its header has no time and no name
    return g.compress, g.flush
