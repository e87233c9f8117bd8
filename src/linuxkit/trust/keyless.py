"""Signatures made with an identity (Fulcio's certificate, Rekor's log), verified by the library `sigstore`.

The library checks the certificate's chain, its time stamp and its entry in the certificate log, the proof that the
signature is in the transparency log, and the signature. Nothing is fetched: the roots come from the rule's
trusted_root.json, or from what the library has on this machine. It comes with the extra `keyless`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from linuxkit.errors import HostError, ImageError, InputError
from linuxkit.trust.payload import Claim, parse_statement
from linuxkit.trust.policy import Identity, glob

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def verify_bundle(data: bytes, identity: Identity, digests: Sequence[str], *, statement: bool) -> Claim:
    """What a bundle says about an image, when it was signed by an identity.

    Args:
        digests: of the image.
        statement: whether the bundle holds an envelope; otherwise a signature of a manifest's bytes.

    Raises:
        ImageError: it was not, or something about it is wrong. InputError: the trusted root cannot be used.
        HostError: the extra is not installed.
    """
    try:
        from sigstore.errors import Error
        from sigstore.hashes import Hashed
        from sigstore.models import Bundle, ClientTrustConfig, TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.common.v1 import HashAlgorithm
    except ImportError:
        raise HostError("signatures by identity need the Python package sigstore",
                        hint="pip install 'linuxkit[keyless]'") from None  # fmt: skip
    try:
        if identity.trusted_root is not None:
            root = TrustedRoot.from_file(str(identity.trusted_root))
        else:
            root = ClientTrustConfig.production(offline=True).trusted_root
        verifier = Verifier(trusted_root=root)
    except (Error, ValueError, OSError) as e:
        raise InputError(f"the trusted root for {identity.identity} cannot be used: {_line(e)}",
                         hint="it is a trusted_root.json of Sigstore's") from None  # fmt: skip
    try:
        bundle = Bundle.from_json(data)
        if statement:
            return parse_statement(*verifier.verify_dsse(bundle, _Policy(identity)))
        for digest in digests:
            hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(digest.removeprefix("sha256:")))
            try:
                verifier.verify_artifact(hashed, bundle, _Policy(identity))
            except Error as e:
                if digest == digests[-1]:
                    raise e
                continue
            return Claim((digest,), nameless=True)
    except (Error, ValueError) as e:
        raise ImageError(f"not signed by {identity.identity}: {_line(e)}") from None
    raise ImageError("no digest to check")


class _Policy:
    """The identity that a certificate has to name: sigstore.verify.policy.VerificationPolicy."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def verify(self, cert: Certificate) -> None:
        from cryptography.x509 import RFC822Name, SubjectAlternativeName, UniformResourceIdentifier
        from sigstore.errors import VerificationError
        from sigstore.verify.policy import AnyOf, OIDCIssuer, OIDCIssuerV2

        try:
            AnyOf([OIDCIssuerV2(self._identity.issuer), OIDCIssuer(self._identity.issuer)]).verify(cert)
        except VerificationError:
            raise VerificationError(f"the identity was not vouched for by {self._identity.issuer}") from None
        names: Any = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
        said = [*names.get_values_for_type(RFC822Name), *names.get_values_for_type(UniformResourceIdentifier)]
        if not any(glob(self._identity.identity, name) for name in said):
            raise VerificationError(f"the certificate is for {', '.join(said)[:300] or 'nobody'}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
