"""The policies that Forebay and Envoy are compared with, and the proof that they are in force."""

import http.client

ORIGIN = "https://app.example.com"  # what the requests of policy items carry
BLOCKED = "127.9.9.9"  # an address of this machine that the last block of the deny list holds
BLOCKS = 1000


def blocks() -> list[tuple[str, int]]:
    """Returns the deny list: `BLOCKS` networks and their prefix lengths, none beside another, one of this machine."""
    networks = [(f"10.{n // 128}.{n % 128 * 2}.0", 24) for n in range(BLOCKS - 1)]
    return [*networks, ("127.9.9.0", 24)]


def forebay_blocks() -> str:
    return "\n".join(f"  - {network}/{length}" for network, length in blocks())


def envoy_principals() -> str:
    """Returns the deny list as RBAC policies usually have it; Envoy goes through it from the first to the last."""
    lines = ["rules:", "  action: DENY", "  policies:", "    blocked:", "      permissions: [{any: true}]",
             "      principals:"]
    lines += [f"      - {{direct_remote_ip: {network(block)}}}" for block in blocks()]
    return indented(lines)


def envoy_trie() -> str:
    """Returns the deny list as a prefix tree, which RBAC also understands."""
    action = "type.googleapis.com/envoy.config.rbac.v3.Action"
    source = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DirectSourceIPInput"
    lines = [
        "matcher:",
        "  matcher_tree:",
        "    input:",
        "      name: envoy.matching.inputs.direct_source_ip",
        f'      typed_config: {{"@type": {source}}}',
        "    custom_match:",
        "      name: envoy.matching.custom_matchers.trie_matcher",
        "      typed_config:",
        '        "@type": type.googleapis.com/xds.type.matcher.v3.IPMatcher',
        "        range_matchers:",
        "        - on_match:",
        "            action:",
        "              name: denied",
        f'              typed_config: {{"@type": {action}, name: denied, action: DENY}}',
        "          ranges:",
    ]
    lines += [f"          - {network(block)}" for block in blocks()]
    lines += ["  on_no_match:", "    action:", "      name: rest",
              f'      typed_config: {{"@type": {action}, name: rest, action: ALLOW}}']
    return indented(lines)


def network(block: tuple[str, int]) -> str:
    return f"{{address_prefix: {block[0]}, prefix_len: {block[1]}}}"


def indented(lines: list[str]) -> str:
    return "\n".join(" " * 14 + line for line in lines)


def fault(port: int, path: str) -> str | None:
    """Returns which policy is not in force at 127.0.0.1:`port`, None when deny list and CORS are."""
    status, headers = ask(port, path, None)
    if status != 200 or headers.get("access-control-allow-origin") != ORIGIN:
        return f"status {status} without CORS: {dict(headers)}"
    refused, _ = ask(port, path, BLOCKED)
    return None if refused == 403 else f"a client on the deny list is answered {refused}"


def ask(port: int, path: str, source: str | None) -> tuple[int, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5, source_address=source and (source, 0))
    try:
        connection.request("GET", path, headers={"Origin": ORIGIN})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()
