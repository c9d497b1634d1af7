"""Plans: seeded to the byte, append-only, and no prompt is sent twice by accident."""

import gzip
import json
import stat
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from loadkit import profiles
from loadkit.core.errors import FormatError, InputError
from loadkit.traffic.build import build_plan
from loadkit.traffic.log import read_prompts, write_log
from loadkit.traffic.plan import TrafficPlan, read_plan, worker_share, write_plan

CORPUS_TRAFFIC = [
    "traffic={kind: corpus, corpus: assistant-chat, requests: 50, message_sentences: "
    "{distribution: constant, mean: 3, max: 9, source: test}}",
]


def plan_of(name: str, *settings: str) -> TrafficPlan:
    return build_plan(profiles.load(name, settings))


def first_prompts(plan: TrafficPlan) -> list[bytes]:
    return [msgspec.json.encode(session.turns[0].messages) for session in plan.sessions]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    files = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.json"
        write_plan(plan_of("chat-assistant", f"seed={seed}"), path)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_plan_survives_writing_and_reading(tmp_path: Path) -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=5")
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_workers_share_all_sessions_without_overlap() -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=11")
    shares = [worker_share(plan, worker, 3) for worker in range(3)]
    assert sorted(s.session for share in shares for s in share) == sorted(
        s.session for s in plan.sessions
    )


def written_log(folder: Path, *rows: tuple[str | int | None, float, str]) -> str:
    path = folder / "log.jsonl"
    lines = [
        {"session_id": who, "timestamp": at, "messages": [{"role": "user", "content": text}]}
        for who, at, text in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


AS_LOGGED = (
    "traffic.corpus=null",
    "traffic.distinct_prompts=null",
    "traffic.requests=null",
    "traffic.message_sentences=null",
)


def test_rows_of_a_log_keep_their_sessions_when_each_is_sent_once(tmp_path: Path) -> None:
    rows = [("a", 1.0, "x"), (7, 0.0, "y"), ("a", 2.0, "z"), (None, 3.0, "w")]
    log = f"traffic.log={written_log(tmp_path, *rows)}"
    arrivals = "arrivals={loop: open, process: log}"
    plan = plan_of("replay-smoke", *AS_LOGGED, log, arrivals)
    named = [(session.session, session.first_turn) for session in plan.sessions]
    assert named == [("7", 0), ("a", 0), ("a", 1), ("replay-00003", 0)]
    for worker, mine in ((0, ["7", "replay-00003"]), (1, ["a", "a"])):
        assert [one.session for one in worker_share(plan, worker, 2)] == mine


def test_a_written_log_is_its_owners_alone(tmp_path: Path) -> None:
    write_log(plan_of("chat-assistant", "traffic.sessions=2"), tmp_path / "log.jsonl")
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600


def test_rows_that_are_sent_again_are_other_sessions_each_time(tmp_path: Path) -> None:
    log = f"traffic.log={written_log(tmp_path, ('a', 0.0, 'x'), ('b', 1.0, 'y'))}"
    again = ("traffic.requests=4", "traffic.wrap=allow")
    plan = plan_of("replay-smoke", *AS_LOGGED, log, *again)
    assert [s.session for s in plan.sessions] == [f"replay-{n:05d}" for n in range(4)]


def test_a_conversation_starts_with_its_system_prompt_and_adds_one_user_message_a_turn() -> None:
    for session in plan_of("chat-assistant").sessions:
        roles = [[message["role"] for message in turn.messages] for turn in session.turns]
        assert roles == [["system", "user"]] + [["user"]] * (len(session.turns) - 1)


def test_system_prompts_are_shared_and_the_first_is_the_most_popular() -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=600", "traffic.system_prompts.exponent=1.5")
    counts = Counter(session.turns[0].messages[0]["content"] for session in plan.sessions)
    assert len(counts) == 6
    # 1 / (1 + 2^-1.5 + ... + 6^-1.5) = .56 of 600 sessions; four standard deviations are 49
    assert abs(counts.most_common(1)[0][1] - 336) < 49


def test_turns_have_the_declared_mean() -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=4000", "traffic.turns.max=1000")
    # geometric with mean 2.5: variance 3.75, so the mean of 4,000 has a standard error of .031
    assert abs(plan.num_requests / 4000 - 2.5) < 0.125


def test_poisson_arrivals_have_the_declared_rate_and_are_ordered() -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=4000", "arrivals.rate_per_s=2")
    starts = [session.start_s for session in plan.sessions]
    assert starts == sorted(starts)
    assert abs(starts[-1] - 2000) < 130  # standard deviation of the last arrival is 32 s


def test_constant_arrivals_are_evenly_spaced() -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=3", "arrivals.process=constant")
    assert [session.start_s for session in plan.sessions] == [0, 2, 4]


def test_prompts_drawn_from_a_corpus_are_all_different() -> None:
    prompts = first_prompts(plan_of("replay-smoke", *CORPUS_TRAFFIC))
    assert len(set(prompts)) == len(prompts) == 50


def small_log(tmp_path: Path, rows: int = 3) -> str:
    path = tmp_path / "log.jsonl"
    lines = [
        {"timestamp": 10 + 2 * n, "messages": [{"role": "user", "content": f"question {n}"}]}
        for n in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


def test_a_finite_corpus_that_would_run_out_is_refused(tmp_path: Path) -> None:
    log = small_log(tmp_path)
    with pytest.raises(InputError, match="5 requests from 3 distinct prompts"):
        plan_of("replay-smoke", *CORPUS_TRAFFIC, f"traffic.corpus={log}", "traffic.requests=5")


def test_an_allowed_wrap_is_counted(tmp_path: Path) -> None:
    log = small_log(tmp_path)
    plan = plan_of(
        "replay-smoke",
        *CORPUS_TRAFFIC,
        f"traffic.corpus={log}",
        "traffic.requests=7",
        "traffic.wrap=allow",
    )
    assert (plan.num_requests, plan.wraps) == (7, 2)


def test_replaying_sends_a_few_prompts_evenly_each_time_from_a_new_session() -> None:
    plan = plan_of("replay-smoke")
    assert sorted(Counter(first_prompts(plan)).values()) == [12] * 5
    assert len({session.session for session in plan.sessions}) == 60
    assert plan.wraps == 11


def test_replaying_more_than_the_log_holds_is_refused_unless_allowed() -> None:
    with pytest.raises(InputError, match="measures replay, not production"):
        plan_of("replay-smoke", "traffic.wrap=refuse")


def test_a_log_can_be_sent_at_its_own_times(tmp_path: Path) -> None:
    plan = plan_of(
        "replay-smoke",
        "traffic.corpus=null",
        f"traffic.log={small_log(tmp_path)}",
        "traffic.distinct_prompts=null",
        "traffic.requests=null",
        "traffic.speed=4",
        "arrivals={loop: open, process: log}",
    )
    assert [session.start_s for session in plan.sessions] == [0, 0.5, 1.0]


def test_a_plan_becomes_a_log_whose_turns_extend_each_other(tmp_path: Path) -> None:
    plan = plan_of("chat-assistant", "traffic.sessions=6")
    write_log(plan, tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == plan.num_requests
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)
    history: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        before = history.get(row["session_id"], [])
        assert row["messages"][: len(before)] == before
        reply = {"role": "assistant", "content": row["response"]["content"]}
        history[row["session_id"]] = [*row["messages"], reply]


def test_a_truncated_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = Path(small_log(tmp_path))
    path.write_text(path.read_text("utf-8") + '{"messages": [{"role"', "utf-8")
    with pytest.raises(FormatError, match=r"log\.jsonl:4: the last line is cut off"):
        read_prompts(path)


def test_an_empty_log_and_a_missing_log_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="the log has no request"):
        read_prompts(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"messages":[{"role":"user","content":"\xff"}]}', "not UTF-8"),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', "not JSON"),
        (b'{"messages":' + b"[" * 100_000, "not JSON"),
        (b'{"timestamp": 1e308, "messages":[]}', "timestamp"),
        (b"1", "no JSON object"),
        (b'{"messages":[]}', "nothing to send"),
    ],
)
def test_a_line_that_no_request_can_be_made_of_is_named(
    tmp_path: Path, line: bytes, what: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(FormatError, match=rf"log\.jsonl:1: .*{what}"):
        read_prompts(path)


def test_a_damaged_gzip_file_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    whole = gzip.compress(b'{"messages":[{"role":"user"}]}\n' * 1000)
    for damaged in (whole[:-9], whole[:12] + b"\xff" * 20, b"no gzip"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"log\.jsonl\.gz: cannot be read"):
            read_prompts(path)
