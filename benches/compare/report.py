"""Numbers to text: medians, ratios round by round, and the gate."""

from statistics import median

# By the work of an item: who the subject is held against, the best of them counts, and how much more it may cost.
GATES = {
    "plain": [(("haproxy", "nginx"), 1.05), (("envoy",), 0.30)],
    "policy": [(("bare",), 1.10), (("envoy", "envoy-trie"), 0.30)],
}
METRICS = ("cpu_us", "user_us", "system_us", "rps", "p50_us", "p99_us", "rss", "busy", "foreign")


def summarise(rounds: list[dict]) -> dict:
    """Returns the median of every metric over the rounds of one proxy and item."""
    return {metric: median(one[metric] for one in rounds) for metric in METRICS}


def ratios(cells: dict[str, list[dict]], subject: str, peer: str, metric: str = "cpu_us") -> list[float]:
    """Returns subject ÷ peer for every round that both finished."""
    other = {one["round"]: one[metric] for one in cells.get(peer, [])}
    return [one[metric] / other[one["round"]] for one in cells.get(subject, []) if other.get(one["round"])]


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "–"


def table(title: str, cells: dict[str, list[dict]], subject: str) -> str:
    """Returns the lines of one work item: a row for each proxy, then the subject's ratios."""
    rows = [f"\n{title}"]
    rows.append("               CPU µs/req     user      sys     req/s   p50 ms   p99 ms  RSS MiB  core others")
    for name, rounds in cells.items():
        if not rounds:
            rows.append(f"  {name:10} {'–':>10}")
            continue
        m = summarise(rounds)
        rows.append(f"  {name:10} {m['cpu_us']:10.2f} {m['user_us']:8.2f} {m['system_us']:8.2f} {m['rps']:9.0f}"
                    f" {m['p50_us'] / 1000:8.3f} {m['p99_us'] / 1000:8.3f} {m['rss'] / 2**20:8.1f}"
                    f" {m['busy']:5.0%} {m['foreign']:6.0%}")
    if cells.get(subject):
        for peer in cells:
            if peer != subject and cells[peer]:
                rows.append(f"  {subject} ÷ {peer}: CPU per request {spread(ratios(cells, subject, peer))},"
                            f" requests/s {spread(ratios(cells, subject, peer, 'rps'))}")
    return "\n".join(rows)


def warnings(results: dict) -> str:
    """Returns what makes the numbers less trustworthy: other work on the proxy's core."""
    shares = [one["foreign"] for cells in results.values() for rounds in cells.values() for one in rounds]
    share = median(shares) if shares else 0
    return f"\nwarning: others used {share:.0%} of the proxy's core, repeat on a quiet machine\n" if share > 0.10 else ""


def gate(items: list, results: dict, subject: str) -> list[dict]:
    """Judges every gate item against the better of each group of peers.

    A verdict is `PASS`, `FAIL`, or `SKIP` when the subject or all peers of a group are missing.
    """
    verdicts = []
    for item in (item for item in items if item.gate):
        cells = results.get(item.name, {})
        for group, bound in GATES[item.work]:
            present = [peer for peer in group if peer != subject and ratios(cells, subject, peer)]
            verdict = {"item": item.name, "against": "/".join(group), "bound": bound, "verdict": "SKIP"}
            if present:
                best = min(present, key=lambda peer: summarise(cells[peer])["cpu_us"])
                values = ratios(cells, subject, best)
                verdict |= {"against": best, "ratio": median(values), "low": min(values), "high": max(values)}
                verdict["verdict"] = "PASS" if verdict["ratio"] <= bound else "FAIL"
            verdicts.append(verdict)
    return verdicts


def gate_lines(verdicts: list[dict], subject: str) -> str:
    lines = []
    for v in verdicts:
        found = f"{v['ratio']:.3f} ({v['low']:.3f}–{v['high']:.3f})" if "ratio" in v else "not measured"
        pair = f"{subject} ÷ {v['against']}"
        lines.append(f"{v['verdict']}  {v['item']:9} CPU per request {pair}: {found}, gate ≤ {v['bound']:.2f}")
    return "\n".join(lines)
