"""What an S3 reply means: no such object, refused, temporary or final. Only this module interprets obstore's
messages.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from cellcount_core.domain.errors import CredentialsFault, RunFault, StorageFault


class S3Meaning(Enum):
    """The kinds of failed requests."""

    NO_OBJECT = "no object"
    NO_BUCKET = "no bucket"
    EXISTS = "exists"
    REFUSED = "refused"
    CREDENTIALS = "credentials"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    TRUNCATED = "truncated"
    WRONG_REGION = "wrong region"
    UNEXPECTED = "unexpected"


PASSING = frozenset({S3Meaning.THROTTLED, S3Meaning.UNREACHABLE, S3Meaning.TRUNCATED})


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request: its meaning, the HTTP status (0 if there was no reply), the S3 error code and the service's message."""

    meaning: S3Meaning
    status: int
    code: str
    message: str


_CREDENTIAL_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AuthFailure",
    "AccountProblem",
    "InvalidSecurity",
    "NotSignedUp",
    "MissingSecurityHeader",
    "CredentialsNotSupported",
    "Unauthorized",
}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_REFUSED_CODES = {"AccessDenied", "AllAccessDisabled", "InvalidObjectState"}
_REGION_CODES = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_PASSING_CODES = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequests",
    "BandwidthLimitExceeded",
    "ProvisionedThroughputExceededException",
    "PriorRequestNotComplete",
    "OperationAborted",
    "ConditionalRequestConflict",
}
_EXISTS_CODES = {"PreconditionFailed", "ObjectAlreadyExists"}

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9._-]+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)


def failure_of(text: str) -> Failure:
    """Read the failure from the text of an obstore message. The part after "Debug source" is ignored, because it repeats the reply."""
    head = text.split("\n\nDebug source", 1)[0]
    if (replied := _STATUS.search(head)) is None:
        meaning = _meaning_without_reply(head)
        return Failure(meaning, 0, "", head.partition("credential provider: ")[2].strip())
    body = head[replied.end() :]
    status = int(replied.group(1))
    code = found.group(1) if (found := _CODE.search(body)) else ""
    said = found.group(1).strip() if (found := _MESSAGE.search(body)) else ""
    return Failure(meaning_of(status, code), status, code, said)


def meaning_of(status: int, code: str) -> S3Meaning:
    """The meaning of a reply with this HTTP status and S3 error code ("" if the body had none).

    A 404 means "no object" only if its code says so: the 404 of a proxy, of another web server or of a
    missing bucket says nothing about the object.
    """
    if code in _PASSING_CODES or status in (408, 425, 429) or status >= 500:
        return S3Meaning.THROTTLED
    if code in ("NoSuchKey", "NoSuchVersion"):
        return S3Meaning.NO_OBJECT
    if code == "NoSuchBucket":
        return S3Meaning.NO_BUCKET
    if code in _EXISTS_CODES or status == 412:
        return S3Meaning.EXISTS
    if code in _REGION_CODES or status in (301, 307):
        return S3Meaning.WRONG_REGION
    if code in _REFUSED_CODES:
        return S3Meaning.REFUSED
    if code in _CREDENTIAL_CODES or status in (401, 403):
        return S3Meaning.CREDENTIALS
    return S3Meaning.UNEXPECTED


def _meaning_without_reply(head: str) -> S3Meaning:
    if "credential provider" in head:
        return S3Meaning.CREDENTIALS
    if "redirect without LOCATION" in head:
        return S3Meaning.WRONG_REGION
    if "Content-Range" in head or "response body" in head or "decoding response" in head:
        return S3Meaning.TRUNCATED
    if "HTTP error" in head or "error sending request" in head or "timed out" in head:
        return S3Meaning.UNREACHABLE
    return S3Meaning.UNEXPECTED


def run_fault(failure: Failure, place: str, endpoint: str, region: str) -> RunFault:
    """The fault that stops the run. Its message names the place (bucket or object), the endpoint, and what to do about it."""
    said = _said(failure)
    match failure.meaning:
        case S3Meaning.CREDENTIALS if failure.code in _EXPIRED_CODES:
            return CredentialsFault(
                f"{place}: the credentials have expired{said}; renew them (AWS_ACCESS_KEY_ID with its AWS_SESSION_TOKEN, "
                "AWS_PROFILE or the machine's role, where the workers look too) and run the same command again, it goes on "
                "where it stopped"
            )
        case S3Meaning.CREDENTIALS if failure.status == 0:
            login = "; run `aws sso login`" if re.search(r"\bSSO\b|\bsso\b", failure.message) else ""
            return CredentialsFault(
                f"{place}: the credentials cannot be renewed ({failure.message[:300]}){login}; run the same command again, it goes on where it stopped"
            )
        case S3Meaning.CREDENTIALS | S3Meaning.REFUSED:
            return CredentialsFault(
                f"{place}: the store refuses the credentials found{said}; check AWS_ACCESS_KEY_ID / AWS_PROFILE / the "
                "machine's role and what its policy allows, or set storage.anonymous for a public bucket"
            )
        case S3Meaning.NO_BUCKET:
            return StorageFault(
                f"{place}: there is no such bucket at {endpoint}; check its name and storage.endpoint"
            )
        case S3Meaning.THROTTLED:
            return StorageFault(
                f"{place}: throttled, {endpoint} kept asking to slow down{said}; run the same command again later, it "
                "goes on where it stopped, or raise storage.retries"
            )
        case S3Meaning.UNREACHABLE:
            return StorageFault(
                f"{place}: unreachable, {endpoint} does not answer; check storage.endpoint, the network and that the "
                "service runs"
            )
        case S3Meaning.TRUNCATED:
            return StorageFault(
                f"{place}: {endpoint} keeps ending the body before its announced length; check the network or proxy"
            )
        case S3Meaning.WRONG_REGION:
            return StorageFault(
                f"{place}: the bucket is not in the region {region!r}{said}; set storage.region to the bucket's own"
            )
        case _:
            return StorageFault(
                f"{place}: {endpoint} gave an answer that S3 does not give{said}; check that storage.endpoint "
                "is an S3 service"
            )


def _said(failure: Failure) -> str:
    words = " ".join(str(part) for part in (failure.status or "", failure.code) if part)
    spoken = f": {failure.message[:200]}" if failure.message else ""
    if failure.code == "RequestTimeTooSkewed":
        spoken += "; this machine's clock is wrong, set it and run the same command again"
    return f" ({words}{spoken})" if words else ""
