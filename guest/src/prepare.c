/* Mounts, folders, cgroups, interfaces and kept namespaces around a container. */
#include "service.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define PROPAGATION (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)
#define BIND_KEEPS (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME)

/* Is there a new mount after it? Else it changes one that is there. */
static bool makes_mount(const struct step *step)
{
    return !(step->flags & MS_REMOUNT) && (step->flags & ~(PROPAGATION | MS_REC) || !(step->flags & PROPAGATION));
}

/* -1, with errno as it was. */
static int undo_mount(const struct step *step)
{
    int error = errno;
    if (makes_mount(step))
        umount2(step->path, MNT_DETACH);
    errno = error;
    return -1;
}

/* mount(2) takes one kind of change at a time: the mount, a bind's own flags, the propagation. */
static int mount_step(const struct step *step)
{
    unsigned long propagation = step->flags & PROPAGATION, recursive = step->flags & MS_REC;
    unsigned long flags = step->flags & ~(PROPAGATION | MS_REC);
    const char *data = *step->data ? step->data : NULL;
    if (flags & MS_BIND) {
        if (!(flags & MS_REMOUNT) && mount(step->source, step->path, NULL, MS_BIND | recursive, NULL) < 0)
            return -1;
        if (flags & BIND_KEEPS && mount(NULL, step->path, NULL, MS_REMOUNT | MS_BIND | (flags & BIND_KEEPS), NULL) < 0)
            return undo_mount(step);
    } else if (flags & ~MS_REMOUNT || !propagation) {
        const char *type = *step->type ? step->type : NULL, *source = *step->source ? step->source : NULL;
        if (mount(source ? source : type, step->path, type, flags, data) < 0)
            return -1;
    }
    if (propagation && mount(NULL, step->path, NULL, propagation | recursive, NULL) < 0)
        return undo_mount(step);
    return 0;
}

static int make_cgroup(const char *name)
{
    if (exists("/sys/fs/cgroup/cgroup.controllers")) {
        scoped_free char *path = format("/sys/fs/cgroup/%s", name);
        return make_dirs(path, 0755);
    }
    size_t count;
    char **controllers = list_names("/sys/fs/cgroup", &count);
    int result = 0;
    for (size_t i = 0; i < count; i++) {
        scoped_free char *path = format("/sys/fs/cgroup/%s/%s", controllers[i], name);
        result |= make_dirs(path, 0755);
    }
    if (controllers)
        free_names(controllers, count);
    return result;
}

/* A bind of a file needs a file to be mounted on, everything else a folder. */
static int make_target(const struct step *step)
{
    struct stat info;
    if (step->flags & MS_REMOUNT)
        return 0;
    if (!(step->flags & MS_BIND) || stat(step->source, &info) < 0 || S_ISDIR(info.st_mode))
        return make_dirs(step->path, 0755);
    if (exists(step->path))
        return 0;
    make_parents(step->path);
    scoped_fd fd = open(step->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    return fd < 0 ? -1 : 0;
}

/* The newest first. What is left of a start that failed would lie below the mounts of the next. */
static void undo_steps(const struct container *container, size_t count)
{
    while (count--)
        if (container->steps[count].what == STEP_MOUNT && makes_mount(&container->steps[count]))
            umount2(container->steps[count].path, MNT_DETACH);
}

int prepare_files(const struct container *container, char error[static ERROR_MAX])
{
    for (size_t i = 0; i < container->step_count; i++) {
        const struct step *step = &container->steps[i];
        const char *what = step->what == STEP_MOUNT ? "mount" : step->what == STEP_MKDIR ? "mkdir" : "cgroup";
        int result = step->what == STEP_MKDIR    ? make_dirs(step->path, 0755)
                     : step->what == STEP_CGROUP ? make_cgroup(step->path)
                                                 : make_target(step);
        if (result == 0 && step->what == STEP_MOUNT)
            result = mount_step(step);
        if (result < 0) {
            snprintf(error, ERROR_MAX, "%s %s: %s", what, step->path, strerror(errno));
            undo_steps(container, i);
            return -1;
        }
    }
    return 0;
}

void undo_files(const struct container *container)
{
    size_t length = strlen(container->directory);
    for (size_t i = container->step_count; i--;) {
        const struct step *step = &container->steps[i];
        if (step->what != STEP_MOUNT || step->flags & MS_REMOUNT)
            continue;
        if (strncmp(step->path, container->directory, length) || step->path[length] != '/')
            continue;
        /* Only what the bundle itself needs; a mount that others were meant to see stays. */
        if (!strcmp(step->path + length, "/rootfs") || !strcmp(step->path + length, "/tmp"))
            umount2(step->path, MNT_DETACH);
    }
}

bool needs_process(const struct container *container)
{
    return container->interface_count || container->kept_count;
}

static int keep_namespace(const struct kept_namespace *kept, pid_t pid, char error[static ERROR_MAX])
{
    scoped_free char *source = format("/proc/%d/ns/%s", (int)pid, kept->type);
    make_parents(kept->path);
    umount2(kept->path, MNT_DETACH); /* a start before this one */
    scoped_fd fd = open(kept->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0 && mount(source, kept->path, NULL, MS_BIND, NULL) == 0)
        return 0;
    snprintf(error, ERROR_MAX, "keep %s namespace at %s: %s", kept->type, kept->path, strerror(errno));
    return -1;
}

int prepare_process(const struct container *container, pid_t pid, char error[static ERROR_MAX])
{
    for (size_t i = 0; i < container->interface_count; i++)
        if (net_interface(&container->interfaces[i], pid, error) < 0)
            return -1;
    for (size_t i = 0; i < container->kept_count; i++)
        if (keep_namespace(&container->kept[i], pid, error) < 0)
            return -1;
    return 0;
}

static int volume_mount(const struct volume *volume)
{
    scoped_free char *lower = format("%s/lower", volume->directory);
    scoped_free char *merged = format("%s/merged", volume->directory);
    if (volume->readonly) {
        if (mount(lower, merged, NULL, MS_BIND, NULL) < 0)
            return -1;
        return mount(NULL, merged, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
    }
    scoped_free char *scratch = format("%s/tmp", volume->directory);
    scoped_free char *upper = format("%s/upper", scratch), *work = format("%s/work", scratch);
    scoped_free char *data = format("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
    if (mount("tmpfs", scratch, "tmpfs", 0, NULL) < 0 || mkdir(upper, 0755) < 0 || mkdir(work, 0755) < 0)
        return -1;
    return mount("overlay", merged, "overlay", 0, data);
}

int prepare_volumes(const struct plan *plan)
{
    int failed = 0;
    for (size_t i = 0; i < plan->volume_count; i++)
        if (volume_mount(&plan->volumes[i]) < 0) {
            say("volume %s: %s", plan->volumes[i].name, strerror(errno));
            failed++;
        }
    return failed;
}
