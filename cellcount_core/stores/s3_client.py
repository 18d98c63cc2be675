"""Build obstore's S3 client: endpoint, region, credentials of the standard chain, and time limits."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import obstore.exceptions
import obstore.store

from cellcount_core.domain.errors import CredentialsFault
from cellcount_core.stores.base import StorageOptions, checked_endpoint

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig, S3Config, S3Credential

CLIENT_ERRORS = (obstore.exceptions.BaseError, FileNotFoundError)
UNADDRESSABLE = obstore.exceptions.InvalidPathError
DEFAULT_REGION = "us-east-1"
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
CONNECT_TIMEOUT_S = 5.0

# botocore renews credentials that expire within ten minutes, so those it hands out live longer than this.
_CREDENTIALS_KEPT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AwsPlace:
    """Where requests go: `endpoint` (None for AWS itself) and `region`."""

    endpoint: str | None
    region: str


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of one place: `objects` makes no retries of its own, `lister` retries each page of a listing."""

    objects: obstore.store.S3Store
    lister: obstore.store.S3Store


class ChainCredentials:
    """Gives obstore the credentials that botocore finds: environment, ~/.aws, web identity, container,
    instance.

    Raises CredentialsFault if none are found or they cannot be read. Its repr shows no credential.
    """

    def __init__(self) -> None:
        self._found = _chain_credentials()

    def __call__(self) -> S3Credential:
        """The credentials that are valid now; botocore renews those that expire."""
        now = self._found.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_KEPT,
        }


def build_clients(bucket: str, prefix: str, options: StorageOptions) -> Clients:
    """Build both clients of `s3://bucket/prefix`. Raises CredentialsFault if no credentials are found."""
    provider = None if options.anonymous else ChainCredentials()

    def client(retries: int) -> obstore.store.S3Store:
        return obstore.store.S3Store(
            bucket,
            prefix=prefix or None,
            config=_config(bucket, options),
            client_options=_client_options(options),
            retry_config=_retry_config(options, retries),
            credential_provider=provider,
        )

    return Clients(objects=client(0), lister=client(options.retries))


def plain_pages(
    bucket: str, prefix: str, after: str | None, options: StorageOptions
) -> Iterator[list[tuple[str, int, str]]]:
    """Yield (key, size in bytes, tag) of the objects of `s3://bucket/prefix` that come after the key `after`,
    page by page, with the keys as S3 stores them.

    This is for listings in which obstore stops at a key that it cannot handle ("a//b"). Keys are relative
    to the prefix. Raises botocore's errors.
    """
    import botocore
    import botocore.config
    import botocore.session

    at = place_of(options)
    client = botocore.session.Session().create_client(
        "s3",
        region_name=at.region,
        endpoint_url=at.endpoint,
        config=botocore.config.Config(
            connect_timeout=min(CONNECT_TIMEOUT_S, options.timeout_s),
            read_timeout=options.timeout_s,
            retries={"max_attempts": options.retries, "mode": "standard"},
            signature_version=botocore.UNSIGNED if options.anonymous else None,
            s3={"addressing_style": "auto" if at.endpoint is None and "." not in bucket else "path"},
        ),
    )
    above = f"{prefix}/" if prefix else ""
    start = {} if after is None else {"StartAfter": above + after}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=above, **start):
        yield [
            (str(found["Key"])[len(above) :], int(found["Size"]), str(found.get("ETag", "")).strip('"'))
            for found in page.get("Contents", [])
        ]


def place_of(options: StorageOptions) -> AwsPlace:
    """Endpoint and region from the options, else from the environment, else from the AWS profile, else AWS and us-east-1."""
    endpoint = options.endpoint
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        endpoint = endpoint or os.environ.get(name)
    region = options.region
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        region = region or os.environ.get(name)
    if not endpoint or not region:
        profile = _profile_place()
        endpoint, region = endpoint or profile.endpoint, region or profile.region
    return AwsPlace(checked_endpoint(endpoint) if endpoint else None, region)


def pauses(options: StorageOptions) -> Iterator[float]:
    """Yield the seconds to wait before each retry: exponential with jitter, limited in number and in total
    time.

    After https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("equal jitter").
    """
    end = time.monotonic() + options.timeout_s
    for tries in range(options.retries):
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tries)
        pause = random.uniform(longest / 2, longest)
        if time.monotonic() + pause > end:
            return
        yield pause


def _config(bucket: str, options: StorageOptions) -> S3Config:
    at = place_of(options)
    config: S3Config = {
        "region": at.region,
        "skip_signature": options.anonymous,
        "disable_bulk_delete": True,
        # A bucket name with dots does not match the certificate of the virtual host.
        "virtual_hosted_style_request": at.endpoint is None and "." not in bucket,
    }
    if at.endpoint is not None:
        config["endpoint"] = at.endpoint
    return config


def _client_options(options: StorageOptions) -> ClientConfig:
    endpoint = place_of(options).endpoint
    return {
        "allow_http": endpoint is not None and endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=min(CONNECT_TIMEOUT_S, options.timeout_s)),
        "read_timeout": timedelta(seconds=options.timeout_s),
        # obstore's bound on the whole request would cut a large object on a slow line; silence is bounded above.
        "timeout": timedelta(hours=1),
    }


def _retry_config(options: StorageOptions, retries: int) -> RetryConfig:
    backoff: BackoffConfig = {
        "init_backoff": timedelta(seconds=FIRST_PAUSE_S),
        "max_backoff": timedelta(seconds=LONGEST_PAUSE_S),
        "base": 2,
    }
    # Counted from the request, not from its first failure: one silence alone is timeout_s, and is tried again after.
    patience = timedelta(seconds=2 * options.timeout_s)
    return {"backoff": backoff, "max_retries": retries, "retry_timeout": patience}


def _profile_place() -> AwsPlace:
    """What ~/.aws/config says about the profile: `endpoint_url` of its S3 service or of all services, and `region`."""
    import botocore.configprovider
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session()
    try:
        region = session.get_config_variable("region")
        endpoint = None
        if not session.get_config_variable("ignore_configured_endpoint_urls"):
            endpoint = botocore.configprovider.ConfiguredEndpointProvider(
                session.full_config, session.get_scoped_config(), "s3"
            ).provide()
    except botocore.exceptions.BotoCoreError:
        return AwsPlace(None, DEFAULT_REGION)
    return AwsPlace(str(endpoint) if endpoint else None, str(region) if region else DEFAULT_REGION)


def _chain_credentials() -> Credentials:
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session()
    try:
        found = session.get_credentials()
        if found is not None:
            # Those of a login or a role are only asked for here: what is wrong with them is to be told now.
            found.get_frozen_credentials()
    except (botocore.exceptions.SSOError, botocore.exceptions.TokenRetrievalError) as fault:
        profile = session.profile
        login = f"aws sso login --profile {profile}" if profile else "aws sso login"
        raise CredentialsFault(
            f"the login of AWS SSO is missing or has expired ({fault}); run `{login}`"
        ) from None
    except botocore.exceptions.BotoCoreError as fault:
        raise CredentialsFault(f"the credentials of the standard chain cannot be read: {fault}") from None
    if found is None:
        raise CredentialsFault(
            "no credentials were found for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
            "give the machine a role; for a public bucket set storage.anonymous"
        )
    return found
