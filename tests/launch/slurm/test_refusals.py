"""No response and a refusal are different errors, and a refusal says which limit."""

import pytest

from launch.slurm import refusals

# As printed by 22.05 (seen), and by others (messages of slurm_strerror).
SILENT = [
    "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "squeue: error: slurm_receive_msg: Zero Bytes were transmitted or received",
    "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
    "scancel: error: Kill job error on job id 3: Slurm backup controller in standby mode",
    "slurm_update error: Connection refused",
]


@pytest.mark.parametrize("stderr", SILENT)
def test_silence(stderr):
    assert refusals.is_silence(stderr)


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("stderr", "meaning"),
    [
        (
            f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED}Job violates accounting/QOS policy "
            "(job submit limit, user's size and/or time limits)",
            "the QOS limits jobs in the queue (per user): QOSMaxSubmitJobPerUserLimit",
        ),
        (
            f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED}Job violates accounting/QOS policy "
            "(job submit limit, user's size and/or time limits)",
            "your account limits jobs in the queue: AssocMaxSubmitJobLimit",
        ),
        (f"{FAILED}Job violates accounting/QOS policy (job submit limit, ...)", "Slurm does not say which"),
        (f"{FAILED}Invalid account or account/partition combination specified", "the account is not valid"),
        (f"{FAILED}Invalid qos specification", "the QOS is not valid"),
        (f"sbatch: error: invalid partition specified: nope\n{FAILED}Invalid partition name specified", "no such part"),
        (f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)", "more than the partition allows"),
        (f"{FAILED}Requested node configuration is not available", "no node has what was asked for"),
        (f"{FAILED}Invalid generic resource (gres) specification", "no node has these GPUs"),
        (f"{FAILED}Memory required by task is not available", "no node has this much memory"),
        (f"{FAILED}Node count specification invalid", "this many nodes"),
        (f"{FAILED}Invalid feature specification", "no node has this feature"),
        (f"{FAILED}Job dependency problem", "a job that it depends on"),
        ("sbatch: unrecognized option '--container-image=x'", "an option that we pass"),
        ("Requested operation is presently disabled for job 7", "--no-requeue forbids"),
        ("sbatch: fatal: Could not establish a configuration source", "does not know where Slurm's controller is"),
        ("sbatch: error: Munge encode failed: Failed to access socket: Connection refused", "who we are"),
        ("sbatch: error: something new\n\n", "sbatch: error: something new"),
        ("", "it gave no reason"),
    ],
)
def test_refusals_in_words(stderr, meaning):
    assert not refusals.is_silence(stderr)
    assert meaning in refusals.explain(stderr)[0]


SITE = "sbatch: error: No reservation for this job\nsbatch: error: --comment is required on this partition\n"


@pytest.mark.failure(17)
@pytest.mark.parametrize("last", [FAILED, "allocation failure: ", "sbatch: error: allocation failure: "])
def test_where_a_filter_of_the_site_refuses_only_its_own_words_are_the_reason(last):
    """By sbatch and by --test-only; words of a note that Slurm knows, too, are not its reason."""
    said = f"{SITE}{last}Unspecified error\n"
    meaning, hint = refusals.explain(said)
    words = "No reservation for this job; --comment is required on this partition"
    assert meaning == f"the site's own rules: {words}"
    assert refusals.about(said) == ()
    assert "resume" not in hint


@pytest.mark.parametrize("note", ["No reservation for this job", "Invalid qos is never used here", "MaxWall is 24 h"])
def test_a_note_of_the_site_with_known_words_is_not_taken_for_the_reason(note):
    said = f"sbatch: error: {note}\n{FAILED}Invalid partition name specified"
    assert refusals.explain(said)[0] == "there is no such partition"
    assert refusals.about(said) == ("partition",)
    assert refusals.explain(f"{note}\n{FAILED}Requested reservation is invalid")[0] == "the reservation cannot be used"
