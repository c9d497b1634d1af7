"""HTTP proxies of the environment are not used: what they add would be timed as the server's.

Neither the load nor the control plane goes through one, and both say so where it matters.
"""

from __future__ import annotations

from urllib.request import getproxies_environment, proxy_bypass

from loadkit.client.endpoint import Endpoint


def ignored_proxy(endpoint: Endpoint) -> str | None:
    """Says which environment proxy other programs would use for this endpoint; None without one."""
    proxies = getproxies_environment()
    if endpoint.scheme not in proxies and "all" not in proxies:
        return None
    if proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    name = endpoint.scheme if endpoint.scheme in proxies else "all"
    return f"{name}_proxy is set, but loadkit goes to the server directly: a proxy would be timed"
