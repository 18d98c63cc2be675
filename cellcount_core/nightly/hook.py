"""The digest sent to a webhook. Whatever becomes of it is told in words and never fails a night."""

from __future__ import annotations

import os
from collections.abc import Callable
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.nightly.config import Webhook


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would turn the POST into a GET, and might lead elsewhere."""

    def redirect_request(self, *_: object) -> None:
        """None is asked for."""


def hook_url(hook: Webhook) -> str:
    """Where to send to. Raises ConfigFault for anything but http and https, and for a variable that is not set."""
    if hook.url_from is not None:
        url = os.environ.get(hook.url_from, "")
        if not url:
            raise ConfigFault(f"webhook.url_from: the environment variable {hook.url_from} is not set")
        origin = f"webhook.url_from: the value of {hook.url_from}"
    else:
        url, origin = hook.url or "", "webhook.url"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigFault(f"{origin} must be like 'https://host/path'")
    return url


def send(hook: Webhook, body: bytes, sleep: Callable[[float], None]) -> str:
    """POST `body`; says what came of it, naming the host alone since a path may be a secret. Pauses double between tries."""
    url = hook_url(hook)
    host = urlsplit(url).hostname
    headers = {"Content-Type": "application/json", "User-Agent": "cellcount"}
    opener = build_opener(_NoRedirects)
    said = ""
    for attempt in range(hook.retries + 1):
        if attempt:
            sleep(hook.pause_s * 2 ** (attempt - 1))
        request = Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - checked by hook_url
        try:
            with opener.open(request, timeout=hook.timeout_s) as reply:
                return f"sent to {host}: {reply.status}"
        except HTTPError as error:
            said = f"it answered {error.code}"
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, HTTPException, ValueError) as error:
            said = str(getattr(error, "reason", error)) or type(error).__name__
    return f"not sent to {host}: {said}"
