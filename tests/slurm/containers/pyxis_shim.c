/* Stands in for pyxis on a test cluster: a SPANK plugin that takes its options and does what can be done without an
 * image. Tasks get a mount namespace of their own with the mounts that were asked for, read-only ones read-only, and
 * without Slurm's commands, as in an image. The options are left in the tasks' environment as SHIM_*. Two options of
 * other sites' plugins, --environment=FILE and --disable-dcgm, are taken and left there, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <slurm/spank.h>

SPANK_PLUGIN(pyxis, 1);

enum { IMAGE, MOUNTS, WORKDIR, ENVIRONMENT, NO_REMAP_ROOT, NO_MOUNT_HOME, ENGINE, DCGM, COUNT };

static const struct {
	const char *option, *variable;
	int has_argument;
} known[COUNT] = {
	[IMAGE] = { "container-image", "SHIM_CONTAINER_IMAGE", 1 },
	[MOUNTS] = { "container-mounts", "SHIM_CONTAINER_MOUNTS", 1 },
	[WORKDIR] = { "container-workdir", "SHIM_CONTAINER_WORKDIR", 1 },
	[ENVIRONMENT] = { "container-env", "SHIM_CONTAINER_ENV", 1 },
	[NO_REMAP_ROOT] = { "no-container-remap-root", "SHIM_NO_CONTAINER_REMAP_ROOT", 0 },
	[NO_MOUNT_HOME] = { "no-container-mount-home", "SHIM_NO_CONTAINER_MOUNT_HOME", 0 },
	[ENGINE] = { "environment", "SHIM_ENVIRONMENT", 1 },
	[DCGM] = { "disable-dcgm", "SHIM_DISABLE_DCGM", 0 },
};

static const char *const hidden[] = { "/usr/bin/sbatch", "/usr/bin/scancel", "/usr/bin/scontrol",
				      "/usr/bin/sinfo",  "/usr/bin/squeue",  "/usr/bin/srun" };

static char given[COUNT][8192];
static int seen[COUNT];

static int take(int which, const char *argument, int remote)
{
	(void) remote;
	seen[which] = 1;
	snprintf(given[which], sizeof(given[which]), "%s", argument != NULL ? argument : "yes");
	return 0;
}

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
	(void) argc;
	(void) argv;
	if (spank_context() == S_CTX_SLURMD)
		return 0;
	for (int which = 0; which < COUNT; which++) {
		struct spank_option option = { (char *) known[which].option, known[which].has_argument ? "ARG" : NULL,
					       "[shim] as of pyxis", known[which].has_argument, which, take };
		if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
			return -1;
	}
	return 0;
}

static int bind(const char *source, const char *target, int read_only)
{
	if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) != 0 ||
	    (read_only && mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) != 0)) {
		slurm_error("shim: cannot mount %s at %s: %s", source, target, strerror(errno));
		return -1;
	}
	return 0;
}

static int bind_all(char *mounts)
{
	char *rest = mounts, *one;
	while ((one = strsep(&rest, ",")) != NULL) {
		char *source = strsep(&one, ":"), *target = strsep(&one, ":");
		if (target == NULL || bind(source, target, one != NULL && strcmp(one, "ro") == 0) != 0)
			return -1;
	}
	return 0;
}

int slurm_spank_task_init_privileged(spank_t spank, int argc, char **argv)
{
	char mounts[sizeof(given[MOUNTS])];
	(void) spank;
	(void) argc;
	(void) argv;
	if (!seen[IMAGE])
		return 0;
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		slurm_error("shim: no mount namespace: %s", strerror(errno));
		return -1;
	}
	memcpy(mounts, given[MOUNTS], sizeof(mounts));
	if (seen[MOUNTS] && bind_all(mounts) != 0)
		return -1;
	for (size_t i = 0; i < sizeof(hidden) / sizeof(*hidden); i++)
		if (access(hidden[i], F_OK) == 0 && bind("/dev/null", hidden[i], 0) != 0)
			return -1;
	return 0;
}

int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
	(void) argc;
	(void) argv;
	for (int which = 0; which < COUNT; which++)
		if (seen[which])
			spank_setenv(spank, known[which].variable, given[which], 1);
	if (seen[WORKDIR] && chdir(given[WORKDIR]) != 0)
		return -1;
	return 0;
}
