"""What each key of a profile is for: editors show it. ``docs/profiles.md`` says the same, which a test compares."""

PROFILE_WORDS: dict[str, str] = {
    "name": "shown in reports",
    "extends": "profiles that this one overrides",
    "executor": "jobs of Slurm, or processes of this machine",
    "workspace": "on the shared file system: store, runs, snapshots. `--workspace` and `$OVERNIGHT_WORKSPACE` win",
    "file_systems.NAME.path": "a file system of the site",
    "file_systems.NAME.quota": (
        "the user's quota there: checkpoints have to fit into that of the innermost one around the workspace"
    ),
    "file_systems.NAME.scratch": (
        "each node has its own disk there: a job gets a directory on it as `TMPDIR`, on every node, removed "
        "when its work ends; containers mount the path. A node that is killed at once leaves it to the site"
    ),
    "quota": "of the workspace; overrides `file_systems`",
    "devcluster": "use the Slurm of `overnight cluster up`",
    "partition": "default of all jobs; several with commas: Slurm chooses",
    "account": "likewise",
    "qos": "likewise",
    "reservation": "likewise",
    "constraint": "likewise",
    "resources.NAME.partition": "`--partition`",
    "resources.NAME.account": "`--account`",
    "resources.NAME.qos": "`--qos`",
    "resources.NAME.reservation": "`--reservation`",
    "resources.NAME.constraint": "`--constraint`",
    "resources.NAME.image": "container image; is part of the fingerprint",
    "resources.NAME.nodes": "`--nodes`",
    "resources.NAME.processes_per_node": "processes that torchrun starts on a node; for Slurm a node is one task",
    "resources.NAME.cpus": "`--cpus-per-task`: CPUs of a node, also for srun; divides into `OMP_NUM_THREADS`",
    "resources.NAME.gpus_per_node": "GPUs of a node, asked for in the way of `gpu_request`",
    "resources.NAME.mem": "`--mem` of a node",
    "resources.NAME.time": (
        "`--time`. Training that is given more than its partition allows goes on in segments of what it allows"
    ),
    "gpu_request.form": (
        "the option that asks for GPUs; `gpu_request: gres` is short for it. With `gpus`, jobs of several "
        "nodes say `--gpus-per-node`, too: Slurm would share the total out unevenly"
    ),
    "gpu_request.model": "as in `--gres=gpu:a100:4`",
    "exclusive": "which jobs say `--exclusive`",
    "mem": (
        "whether `--mem` is what the job asks for, all of the node (`--mem=0`) where it asks for nothing, or never said"
    ),
    "per_cpu.mem": "`--mem-per-cpu`, for jobs that ask for no `mem`",
    "per_gpu.mem": "`--mem-per-gpu`, for jobs with GPUs that ask for no `mem`",
    "per_gpu.cpus": "CPUs for each GPU of a job that asks for no `cpus`",
    "clusters": (
        "jobs go to this cluster of the site (`--clusters`), and every question, requeue and cancellation too (`-M`)"
    ),
    "partitions.NAME.max_time": "the longest job; where training is split",
    "partitions.NAME.max_nodes": "the most nodes of a job",
    "partitions.NAME.bins.nodes": "of a list: jobs on at most so many nodes have less than `max_time`, as on Frontier",
    "partitions.NAME.bins.time": "the longest one of these",
    "partitions.NAME.cpus": "of a node",
    "partitions.NAME.memory": "of a node",
    "partitions.NAME.gpus": "of a node; 0: none",
    "partitions.NAME.gpu_model": "such as `h100`: the plan then estimates hours",
    "partitions.NAME.gpu_memory": "of one GPU: what cannot fit is refused with what would",
    "partitions.NAME.features": "of the nodes: the plan says where a `constraint` is none of them",
    "partitions.NAME.preemptible": "the plan says which stages have no saves to go on from",
    "partitions.NAME.exclusive": "jobs get whole nodes: the plan says how many GPUs stay idle",
    "partitions.NAME.cost_per_gpu_hour": (
        "in the site's unit: the plan says what a stage is estimated to cost, and what all of them cost at most"
    ),
    "environments.NAME.venv": "virtual environment of a back end (`trl`, `nemo`, ...), on the shared file system",
    "environments.NAME.image": "container image of a back end",
    "environments.NAME.modules": "`module load` on every node",
    "environments.NAME.python": "interpreter after the modules or in the image",
    "environments.NAME.nodes_only": (
        "the login node cannot run it: nodes of another architecture, or paths that only they have"
    ),
    "modules": "loaded on every node before those of the back end, for every job",
    "setup": "lines of bash in the batch shell, before Overnight's own",
    "env.NAME": "exported on all nodes: `NCCL_SOCKET_IFNAME`, `TMPDIR`, ...",
    "node_env.NAME": (
        'as `env`, with variables that only the node has: `HF_HOME: "$SLURM_TMPDIR/hf"`. What such a variable'
        " holds is text: nothing of it is run"
    ),
    "node_scratch": (
        "the directory of each node for its job, named by a variable of the node (`$SLURM_TMPDIR`), in place "
        "of a `scratch` of `file_systems`; not with containers"
    ),
    "secrets": (
        "names of variables whose values come from your environment or `~/.config/overnight/secrets`, never "
        "through a script"
    ),
    "offline": "Hugging Face libraries ask no hub: compute nodes have no internet",
    "containers.runtime": "who starts an image",
    "containers.mounts": "`SOURCE:TARGET[:ro]`, beside the workspace and the inputs",
    "containers.variables": "names that go in although the image may set them",
    "containers.gpus": "apptainer's `--nv` or `--rocm`",
    "containers.executable": "`singularity` where it is called so",
    "containers.options": "further arguments of the runtime",
    "executors.NAME": "who carries jobs of a kind",
    "submission": (
        "at most n jobs of a run are in the queue; each that ends submits the next ones from its node. For "
        "sites with MaxSubmitJobs; n is at least 2. Where nodes may not call sbatch: `overnight resume`"
    ),
    "job_name.prefix": "jobs are called PREFIX-RUN-STAGE-ATTEMPT",
    "job_name.longest": (
        "the longest name that the site takes; the stage's name is cut then, not what makes the job's unique:"
        " 13 more than the prefix, and the links"
    ),
    "kill_on_invalid_dep": "jobs behind a failed one are cancelled, not left in the queue",
    "srun_options.mpi": "`srun --mpi`",
    "srun_options.cpu_bind": "`srun --cpu-bind`",
    "srun_options.network": "`srun --network`",
    "sbatch.NAME": (
        "any further option of sbatch; `false` or nothing takes one out. One that the hand-off needs "
        "(`output`, `nodes`, `dependency`, ...) is an error with its line"
    ),
    "launcher": (
        "what starts one process on each node, where that is not srun (`[ibrun]`); of our arguments it gets "
        "those of `srun` alone"
    ),
    "srun": "further arguments of srun; they come last and win",
    "remove": (
        "options to leave out of header, srun line and `apptainer exec`, but for what `srun` adds, and for "
        "apptainer `containers.options`. An option that no job can get is an error with the nearest one; "
        "`profile check` and `plan --check` say which entries change nothing. Three stay: `job-name`, by "
        "which a lost submission is found again, `dependency`, which keeps a stage from starting before its "
        "input is there, `parsable`, by which the job's id is read"
    ),
    "continuation": (
        "after a time limit: under the same job id (evaluations, too), or in the next of several jobs, "
        "where requeue is forbidden"
    ),
    "requeue_refused": (
        "words by which the site refuses a requeue: it is then asked for once (any other refusal three times)"
    ),
    "links": "jobs of a chain",
    "lead": "how long before its end a job saves and leaves; three times the longest save, if that is more",
    "signal.name": (
        "signal by `--signal` to the work, for nodes that may not ask squeue and for preemption with a grace "
        "time; not to stages with Ray, whose daemons die of it"
    ),
    "signal.lead": "how long before the end; Slurm may be a minute early",
    "retries.NAME": "how often a class of failure is tried again",
    "seals": (
        "`light` reads only size, first and last MiB of each file: under 2 s for any checkpoint, and **bit "
        "flips in between are not detected**; it is written in the seal, and `status` says so"
    ),
    "stall_after": "work that reports no step for so long is ended with the stacks of all ranks",
    "poll_seconds": "the least time between two questions of a job to the controller",
    "poll_floor": (
        "the least time between two questions to the queue over all commands and jobs of a user on a cluster "
        "(by a file in `~/.local/state/overnight`); commands wait for it. For sites that refuse more than one"
        " squeue in two minutes"
    ),
    "notify.mail": "Slurm writes: `--mail-user`, `--mail-type`",
    "notify.command": (
        "a line of bash that the end of a job runs, with `OVERNIGHT_EVENT`, `OVERNIGHT_RUN`, "
        "`OVERNIGHT_STAGE`; for a minute at most, and what becomes of it changes nothing"
    ),
    "notify.to": (
        "each is an address as apprise takes it (`mailto://`, `slack://`, `msteams://`, `json://`, ...), with"
        " its token; it gets one letter about the end of a run, with the page of the run where the service "
        "takes files; extra `notify`"
    ),
    "notify.on": "`done`: a stage that nothing waits for; `failed`: any stage",
}
SECTION_WORDS: dict[str, str] = {
    "partitions": "what partitions have and allow: checked before any sbatch",
    "partitions.NAME.bins": "less than `max_time` for jobs on few nodes",
    "resources": "what jobs ask for: of `default`, `training`, `data` or one kind; the most particular wins",
    "gpu_request": "how GPUs are asked for",
    "per_cpu": "what a job is given for each CPU",
    "per_gpu": "what a job is given for each GPU",
    "job_name": "how jobs are called in the queue",
    "srun_options": "options of srun that sites differ in",
    "containers": "how containers are made here",
    "executors": "who carries jobs, by kind",
    "environments": "where each back end is installed",
    "file_systems": "the file systems of the site",
    "retries": "how often classes of failures are tried again",
    "signal": "a signal to the work before its end",
    "notify": "who is notified when a run ends",
    "sbatch": "further options of sbatch",
    "env": "variables that are exported on all nodes",
    "node_env": "variables whose values only the node knows",
}  # fmt: skip
"""Of keys that hold others."""
