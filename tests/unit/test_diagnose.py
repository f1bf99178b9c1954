"""What a job's pods are found to suffer from; the objects are spelled as Kubernetes 1.37 spells them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelinejob_operator.diagnose import (
    MAX_MESSAGE,
    ORDER,
    Problem,
    diagnose,
    job_state,
    lost_pods,
    needs_events,
    terminating,
    termination,
)

Object = dict[str, Any]

START = datetime(2026, 11, 23, 1, 11, 19, tzinfo=UTC)
JOB_UID = "9f66ca0e-b5b8-44ae-a9df-8d8469cc7ca9"
FORBIDDEN = 'Error creating: pods "men-0a1b2-run-1-0-vg8sl" is forbidden: '


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def job(uid: str = JOB_UID, born: float = 0, name: str = "men-0a1b2-run-1", **status: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "creationTimestamp": at(born)},
        "spec": {"parallelism": 1, "completions": 5, "suspend": False},
        "status": {"startTime": at(born), "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}, **status},
    }


def ended(kind: str, **status: Any) -> Object:
    """A Job with that condition."""
    return job(conditions=[{"type": kind, "status": "True", "reason": "PodFailurePolicy", "lastTransitionTime": at(9)}], **status)


def pod(name: str, born: float = 0, index: int | None = 0, phase: str = "Pending", state: Object | None = None, **of: Any) -> Object:
    """A pod as the operator keeps it; `of` is laid over its metadata, or over its status where it belongs there."""
    metadata: Object = {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "creationTimestamp": at(born),
        "ownerReferences": [{"kind": "Job", "name": "men-0a1b2-run-1", "uid": of.pop("owner", JOB_UID), "controller": True}],
    }
    if index is not None:
        metadata["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    if "deleted" in of:
        metadata["deletionTimestamp"] = at(of.pop("deleted"))
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(born)}, *of.pop("conditions", [])]
    status: Object = {"phase": phase, "conditions": conditions, **of}
    if state is not None:
        limits = {"requests": {"memory": "16Mi"}, "limits": {"memory": "40Mi"}}
        status["containerStatuses"] = [
            {"name": "worker", "image": "img:1", "ready": "running" in state, "state": state, "lastState": {}, "resources": limits}
        ]
    spec = {"nodeName": "node-0", "containers": [{"name": "worker", "image": "registry.example.com/worker:3"}]}
    return {"metadata": metadata, "spec": spec, "status": status}


def waiting(reason: str, message: str | None = None) -> Object:
    return pod("p", state={"waiting": {"reason": reason, **({"message": message} if message else {})}})


def unscheduled(message: str) -> Object:
    found = pod("p")
    found["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
    del found["spec"]["nodeName"]
    return found


def failed(name: str, code: int, reason: str = "Error", message: str | None = None, born: float = 0, **of: Any) -> Object:
    end = {"exitCode": code, "reason": reason, "startedAt": at(born), "finishedAt": of.pop("finished", at(born + 2))}
    return pod(name, born, phase="Failed", state={"terminated": {**end, **({"message": message} if message else {})}}, **of)


def event(uid: str, reason: str, message: str, last: float = 5) -> Object:
    return {
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "x", "uid": uid},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": 3,
        "firstTimestamp": at(1),
        "lastTimestamp": at(last),
        "eventTime": None,
        "metadata": {"creationTimestamp": at(1)},
    }


def found(*pods: Object, events: tuple[Object, ...] = (), of: Object | None = None, now: float = 20) -> Problem | None:
    return diagnose([of or job()], pods, events, after(now))


def told(*pods: Object, **more: Any) -> tuple[str, str]:
    problem = found(*pods, **more)
    assert problem is not None
    assert len(problem.message) <= MAX_MESSAGE
    assert "\n" not in problem.message
    return problem.reason, problem.message


# ---- the database


@pytest.mark.parametrize(("seconds", "ready", "is_told"), [(12, False, True), (7, False, False), (300, True, False)])
def test_a_pod_that_runs_and_does_not_reach_the_database(seconds: float, ready: bool, is_told: bool) -> None:
    one = pod("p", phase="Running", state={"running": {"startedAt": at(0)}})
    one["status"]["containerStatuses"][0]["ready"] = ready
    problem = found(one, now=seconds)
    assert (problem is not None) == is_told
    if problem is not None:
        assert problem.reason == "DatabaseUnavailable"
        assert "database.workerUrl" in problem.message
        assert "kubectl logs -n shop p" in problem.message


# ---- images and containers


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", 'failed to pull and unpack image "registry.example.com/worker:3": not found'),
        (
            "ImagePullBackOff",
            'Back-off pulling image "registry.example.com/worker:3": ErrImagePull: '
            'failed to pull and unpack image "registry.example.com/worker:3": not found',
        ),
    ],
)
def test_an_image_that_cannot_be_pulled_reads_the_same_at_each_try(reason: str, message: str) -> None:
    assert told(waiting(reason, message)) == (
        "ImagePullBackOff",
        "pod p cannot get its image 'registry.example.com/worker:3': "
        'failed to pull and unpack image "registry.example.com/worker:3": not found: '
        "check spec.worker.image (or the chart's image.worker), and spec.worker.imagePullSecrets for a private registry",
    )


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"])
def test_all_that_keeps_an_image_away_has_one_reason(reason: str) -> None:
    assert told(waiting(reason))[0] == "ImagePullBackOff"
    assert reason in told(waiting(reason))[1]


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_a_container_that_cannot_be_made(reason: str) -> None:
    assert told(waiting(reason, 'secret "men-0a1b2-database" not found'))[0] == "ContainerCannotRun"
    assert 'secret "men-0a1b2-database" not found: check' in told(waiting(reason, 'secret "men-0a1b2-database" not found'))[1]


def test_a_container_whose_command_is_not_in_the_image() -> None:
    message = 'failed to create containerd task: exec: "python": executable file not found in $PATH'
    assert told(failed("p", 128, "StartError", message))[0] == "ContainerCannotRun"
    assert "executable file not found" in told(failed("p", 128, "StartError", message))[1]


# ---- nodes and volumes


def test_a_pod_that_no_node_takes() -> None:
    message = (
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    assert told(unscheduled(message)) == (
        "Unschedulable",
        "no node takes pod p: 0/1 nodes are available: 1 Insufficient cpu: "
        "check spec.worker.resources, nodeSelector and tolerations, or add nodes",
    )


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ('0/1 nodes are available: persistentvolumeclaim "missing" not found. not found', '"missing" not found: check'),
        (
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
            "unbound immediate PersistentVolumeClaims: c",
        ),
        ("0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.", "persistent volumes to bind: check"),
    ],
)
def test_a_claim_that_is_missing_or_not_bound(message: str, kept: str) -> None:
    reason, text = told(unscheduled(message))
    assert reason == "VolumeNotBound"
    assert "spec.data.persistentVolumeClaim.claimName" in text
    assert kept in text
    assert "kubectl describe pvc -n shop" in text


def test_a_pod_that_a_queue_holds_back_is_no_problem() -> None:
    gated = unscheduled("Scheduling is blocked due to non-empty scheduling gates")
    gated["status"]["conditions"][0]["reason"] = "SchedulingGated"
    assert found(gated) is None


def test_a_claim_that_cannot_be_mounted() -> None:
    stuck = waiting("ContainerCreating")
    mount = 'MountVolume.SetUp failed for volume "pv" : hostPath type check failed: /x is not a directory'
    assert found(stuck) is None
    assert told(stuck, events=(event("uid-p", "FailedMount", mount),))[0] == "VolumeNotBound"
    assert mount in told(stuck, events=(event("uid-p", "FailedMount", mount),))[1]
    assert found(stuck, events=(event("uid-other", "FailedMount", mount),)) is None
    assert found(stuck, events=(event("uid-p", "Unhealthy", "no"),)) is None


def test_a_sandbox_that_cannot_be_made() -> None:
    sandbox = event("uid-p", "FailedCreatePodSandBox", "Failed to create pod sandbox: no IP addresses left")
    assert told(pod("p"), events=(sandbox,))[0] == "ContainerCannotRun"
    assert "node node-0" in told(pod("p"), events=(sandbox,))[1]


def test_an_old_mount_failure_does_not_stick_to_a_pod_that_runs() -> None:
    mount = event("uid-p", "FailedMount", "timed out waiting for the condition")
    assert found(pod("p", phase="Running", state={"running": {"startedAt": at(9)}}), events=(mount,)) is None


@pytest.mark.parametrize(("now", "lost"), [(30, False), (89, False), (91, True)])
def test_a_pod_that_outlives_its_deletion_by_a_minute_is_lost(now: float, lost: bool) -> None:
    leaving = pod("p", phase="Running", state={"running": {}}, deleted=30)
    assert lost_pods([leaving], after(now)) == ([leaving] if lost else [])
    assert (found(leaving, now=now) is not None) == lost


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_is_not_lost(phase: str) -> None:
    assert lost_pods([pod("p", phase=phase, deleted=30)], after(500)) == []


def test_a_node_that_stopped_answering() -> None:
    silent = pod("p", phase="Running", state={"running": {"startedAt": at(2)}}, conditions=[{"type": "Ready", "status": "False"}])
    reason, text = told(silent)
    assert reason == "NodeLost"
    assert "node node-0" in text
    assert lost_pods([silent], after(500)) == []  # nobody has given it up yet


# ---- pods that are not created


def test_a_quota_without_room() -> None:
    quota = "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
    reason, text = told(events=(event(JOB_UID, "FailedCreate", f"{FORBIDDEN}{quota}"),))
    assert reason == "QuotaExceeded"
    assert f"namespace shop leaves no room for a pod: forbidden: {quota}: " in text
    assert "vg8sl" not in text  # another name at each try would be another message


@pytest.mark.parametrize(
    "message",
    [
        f'{FORBIDDEN}violates PodSecurity "restricted:latest": runAsNonRoot != true',
        f"{FORBIDDEN}no PriorityClass with name nope was found",
        f"(combined from similar events): {FORBIDDEN}maximum cpu usage per Container is 1, but limit is 2",
    ],
)
def test_pods_that_the_namespace_refuses(message: str) -> None:
    reason, text = told(events=(event(JOB_UID, "FailedCreate", message),))
    assert reason == "PodsForbidden"
    assert text.startswith("namespace shop takes no pod of Job men-0a1b2-run-1: forbidden: ")
    assert message.removeprefix("(combined from similar events): ").removeprefix(FORBIDDEN) in text


def test_a_quota_with_room_for_some_of_the_pods() -> None:
    wide = job()
    wide["spec"]["parallelism"] = 3
    refused = event(JOB_UID, "FailedCreate", f"{FORBIDDEN}exceeded quota: two", last=9)
    running = [pod(str(index), born=6, index=index, phase="Running", state={"running": {}}) for index in (0, 1)]
    assert needs_events([wide], running, after(20))
    reason, text = told(*running, of=wide, events=(refused,))
    assert reason == "QuotaExceeded"
    assert "leaves room for 2 of 3 pods" in text
    wide["status"]["succeeded"] = 3
    assert found(*running, of=wide, events=(refused,)) is None  # two shards are left


def test_a_job_that_waits_in_its_queue() -> None:
    held = job()
    held["spec"]["suspend"] = True
    assert told(of=held) == ("Queued", "the Job men-0a1b2-run-1 is suspended: its Kueue queue has not admitted it yet")


def test_a_refusal_is_over_when_there_was_a_pod_since() -> None:
    refused = event(JOB_UID, "FailedCreate", f"{FORBIDDEN}exceeded quota: none", last=5)
    assert found(pod("p", born=6, phase="Running", state={"running": {}}), events=(refused,)) is None
    assert found(failed("p", 75, born=6), events=(refused,)) is None
    assert told(failed("p", 75, born=3), events=(refused,))[0] == "QuotaExceeded"
    assert told(events=(refused, event(JOB_UID, "FailedCreate", f"{FORBIDDEN}other", last=8)))[0] == "PodsForbidden"


def test_events_of_the_new_kind_have_their_time_elsewhere() -> None:
    new = event(JOB_UID, "FailedCreate", f"{FORBIDDEN}exceeded quota: none")
    new |= {"firstTimestamp": None, "lastTimestamp": None, "eventTime": "2026-11-23T01:11:25.648445Z"}
    assert told(failed("p", 75, born=3), events=(new,))[0] == "QuotaExceeded"


# ---- pods that failed


def test_out_of_memory() -> None:
    reason, text = told(failed("p", 137, "OOMKilled"))
    assert reason == "OOMKilled"
    assert "(limit 40Mi), exit code 137 (SIGKILL): " in text
    assert "spec.worker.resources.limits.memory" in text


def test_out_of_memory_of_a_child_alone_is_no_failure() -> None:
    child = pod("p", phase="Succeeded", state={"terminated": {"exitCode": 0, "reason": "OOMKilled"}})
    assert found(child) is None


def test_out_of_memory_before_the_last_start_of_the_container() -> None:
    again = pod("p", phase="Failed", state={"waiting": {"reason": "ContainerCreating"}})
    again["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert told(again)[0] == "OOMKilled"


@pytest.mark.parametrize(("code", "text"), [(1, "1"), (137, "137 (SIGKILL)"), (139, "139 (SIGSEGV)"), (255, "255")])
def test_a_crash_names_pod_exit_code_and_where_to_look(code: int, text: str) -> None:
    assert told(failed("p-7", code)) == ("PodFailed", f"pod p-7 ended with exit code {text}: see `kubectl logs -n shop p-7`")


def test_a_crash_that_could_say_why() -> None:
    text = told(failed("p", 1, message='{"reason": "DatabaseUnavailable", "message": "no answer\\nfrom db:5432"}'))[1]
    assert text == "pod p ended with exit code 1: DatabaseUnavailable: no answer from db:5432: see `kubectl logs -n shop p`"


@pytest.mark.parametrize("code", [42, 43, 75])
def test_a_pod_that_ended_by_its_own_will_is_not_a_crash(code: int) -> None:
    assert found(failed("p", code)) is None


def test_a_pod_that_its_node_ended() -> None:
    evicted = failed("p", 137, "ContainerStatusUnknown", finished=None)
    evicted["status"] |= {"reason": "Evicted", "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". '}
    refused = pod("p", phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu")
    assert told(evicted)[0] == told(refused)[0] == "PodFailed"
    assert 'ended by its node: Evicted: Usage of EmptyDir volume "tmp" exceeds the limit "1Mi": ' in told(evicted)[1]
    assert "OutOfcpu: Node didn't have enough resource: cpu" in told(refused)[1]


def test_a_pod_that_somebody_took_away_is_no_problem() -> None:
    disrupted = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    assert found(failed("p", 143, conditions=disrupted)) is None
    assert found(failed("p", 137, deleted=10)) is None
    lost = failed("p", 137, deleted=10)
    lost["status"]["reason"] = "NodeLost"  # as the operator writes it
    assert found(lost, now=500) is None


# ---- what counts


def test_only_the_newest_pod_of_an_index_counts() -> None:
    bad, good = failed("bad", 1, born=0), pod("good", born=12, phase="Running", state={"running": {}})
    assert found(bad, good) is None
    assert found(good, bad) is None
    assert found(pod("good", born=0, phase="Running", state={"running": {}}), failed("bad", 1, born=0)) is None  # the same second
    assert told(failed("first", 1, born=0), failed("second", 137, "OOMKilled", born=12))[0] == "OOMKilled"
    assert told(bad, pod("other", born=12, index=1, phase="Running", state={"running": {}}))[0] == "PodFailed"


def test_an_index_that_has_succeeded_counts_no_more_though_its_last_pod_is_not_seen() -> None:
    assert found(failed("p", 1, index=4), of=job(completedIndexes="0,2-4")) is None
    assert told(failed("p", 1, index=1), of=job(completedIndexes="0,2-4"))[0] == "PodFailed"


def test_only_the_newest_job_counts() -> None:
    old, new = ended("Failed"), job("other", born=60, name="men-0a1b2-run-2")
    assert diagnose([old, new], [failed("p", 1)], [], after(61)) is None
    assert diagnose([old], [failed("p", 1)], [], after(61)) is not None  # why the round failed
    assert diagnose([ended("Complete")], [failed("p", 1)], [], after(61)) is None
    assert diagnose([], [failed("p", 1)], [], after(61)) is None


def test_of_many_problems_the_most_telling_is_told() -> None:
    pods = [unscheduled("0/1 nodes are available: 1 Insufficient cpu."), failed("b", 137, "OOMKilled", index=1)]
    assert told(*pods)[0] == "OOMKilled"
    pull = waiting("ErrImagePull")
    pull["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": "2"}
    assert told(*pods, pull)[0] == "ImagePullBackOff"
    assert len(set(ORDER)) == len(ORDER)


def test_a_pod_of_a_job_without_indexes() -> None:
    assert told(failed("plan", 1, index=None))[0] == "PodFailed"
    assert found(failed("plan", 1, index=None), pod("next", born=9, index=None)) is None


def test_what_others_say_is_cut_and_the_advice_is_kept() -> None:
    text = told(waiting("ErrImagePull", "no\nway " * 500))[1]
    assert len(text) == MAX_MESSAGE
    assert "…: check spec.worker.image" in text
    long = waiting("ErrImagePull", "no")
    long["spec"]["containers"][0]["image"] = "x" * 900
    assert len(told(long)[1]) == MAX_MESSAGE


# ---- when Events are worth a request


@pytest.mark.parametrize(
    ("pods", "of", "now", "needed"),
    [
        ([], job(), 2, False),
        ([], job(), 4, True),
        ([], job(born=10), 12, False),
        ([], ended("Complete"), 99, False),
        ([], ended("Failed"), 99, False),
        ([pod("p")], job(), 4, False),
        ([pod("p")], job(), 6, True),
        ([waiting("ContainerCreating")], job(), 6, True),
        ([waiting("ErrImagePull")], job(), 99, False),
        ([unscheduled("0/1 nodes")], job(), 99, False),
        ([pod("p", phase="Running", state={"running": {}})], job(), 99, False),
        ([failed("p", 1, born=10)], job(), 14, False),
        ([failed("p", 1, born=10)], job(), 16, True),
        ([failed("p", 137, finished=None)], job(), 16, True),
        ([pod("p", owner="another")], job(), 2, False),
    ],
)
def test_events_are_read_only_where_nothing_else_can_tell(pods: list[Object], of: Object, now: float, needed: bool) -> None:
    assert needs_events([of], pods, after(now)) is needed


def test_a_suspended_job_waits_for_no_pod() -> None:
    suspended = job()
    suspended["spec"]["suspend"] = True
    assert not needs_events([suspended], [], after(99))
    assert not needs_events([], [], after(99))


# ---- the last words of a pod


def test_the_newest_last_word_counts() -> None:
    first = failed("a", 43, message='{"reason": "InputNotFound", "message": "no file rows.csv"}', finished=at(5))
    second = failed("b", 42, message='{"reason": "InputChanged", "message": "the CSV\\n was changed"}', finished=at(8), index=1)
    assert termination([second, first]) == Problem("InputChanged", "the CSV was changed")
    assert termination([first]) == Problem("InputNotFound", "no file rows.csv")


@pytest.mark.parametrize(
    "message", [None, "", "Killed", "[]", "3", "null", '{"reason": "X"}', '{"reason": 1, "message": "m"}', '{"reason": "X']
)
def test_junk_is_no_last_word(message: str | None) -> None:
    said = failed("a", 43, message='{"reason": "InputNotFound", "message": "no file"}', finished=at(1))
    assert termination([failed("b", 43, message=message, finished=None, index=1)]) is None
    assert termination([failed("b", 43, message=message, index=1), said]) == Problem("InputNotFound", "no file")


def test_last_words_of_retries_and_of_earlier_jobs_do_not_count() -> None:
    words = '{"reason": "InputNotFound", "message": "no file"}'
    assert termination([failed("a", 1, message=words)]) is None
    assert termination([failed("a", 43, message=words), pod("b", born=60, owner="next")]) is None
    assert termination([]) is None


# ---- Jobs


@pytest.mark.parametrize(
    ("what", "state"),
    [
        (job(), "running"),
        (ended("Suspended"), "running"),
        (ended("SuccessCriteriaMet"), "complete"),
        (ended("Complete"), "complete"),
        (ended("FailureTarget"), "failed"),
        (ended("Failed"), "failed"),
        ({"metadata": {"name": "j"}}, "running"),
    ],
)
def test_how_a_job_stands(what: Object, state: str) -> None:
    assert job_state(what) == state
    deleted = {**what, "metadata": {**what["metadata"], "deletionTimestamp": at(0)}}
    assert job_state(deleted) == "deleting"


def test_pods_that_have_not_ended() -> None:
    assert terminating(job()) == 0
    assert terminating(job(terminating=2)) == 2
    assert terminating(ended("FailureTarget", active=1, terminating=1)) == 2
    assert terminating({"metadata": {"name": "j"}}) == 0
