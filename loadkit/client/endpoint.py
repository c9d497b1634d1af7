"""Where the server is: an http(s) URL taken apart once."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from loadkit.core.errors import InputError

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server. `base_path` is what stands before `/v1`, "" for most."""

    scheme: str
    host: str
    port: int
    base_path: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Accepts `http://host:port`, with or without a trailing `/v1`. InputError otherwise."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            if host and not host.isascii():  # as DNS and the Host header have it
                host = host.encode("idna").decode("ascii")
        except ValueError as error:
            raise _bad_url(url, str(error)) from error
        if parts.scheme not in DEFAULT_PORTS or not host:
            raise _bad_url(url, "not an http:// or https:// URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise _bad_url(url, "user, query and fragment have no place in it")
        path = parts.path.rstrip("/").removesuffix("/v1")
        if port is None:
            port = DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, host, port, quote(path, safe="/%:@!$&'()*+,;=~-._"))

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base_path}"

    @property
    def authority(self) -> str:
        """`host:port` as the Host header has it; an IPv6 address stands in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"


def ignored_proxy(endpoint: Endpoint) -> str | None:
    """Says which environment proxy other programs would use for this endpoint; None without one.

    Neither the load nor the control plane goes through one: what it adds would be timed.
    """
    proxies = getproxies_environment()
    if endpoint.scheme not in proxies and "all" not in proxies:
        return None
    if proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    name = endpoint.scheme if endpoint.scheme in proxies else "all"
    return f"{name}_proxy is set, but loadkit goes to the server directly: a proxy would be timed"


def _bad_url(url: str, why: str) -> InputError:
    where = url if "@" not in url else "--url"
    return InputError(why, where=where, remedy="give one like http://127.0.0.1:8000")
