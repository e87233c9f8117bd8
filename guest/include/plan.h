/* /etc/linuxkit/plan: what the builder decided. docs/design/guest.md, "The plan". */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define PLAN_FILE "/etc/linuxkit/plan"

enum kind { ONBOOT, ONSHUTDOWN, SERVICE };
enum restart { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };

/* One thing to prepare before the container starts, in the order of the file. */
struct step {
    enum { STEP_MOUNT, STEP_MKDIR, STEP_CGROUP } what;
    const char *type, *source, *data; /* mount */
    unsigned long flags;              /* mount: as mount(2) takes them */
    const char *path;                 /* mount: destination; mkdir: folder; cgroup: name */
};

/* A network interface for the container's network namespace. */
struct interface {
    const char *name, *add, *peer;
    bool in_root; /* made in the root namespace, then moved */
};

/* A namespace of the container to keep at a path. */
struct kept_namespace {
    const char *type, *path; /* type: a name in /proc/PID/ns */
};

/* How to find out whether a service works. Times in seconds. */
struct health {
    enum { HEALTH_NONE, HEALTH_TEST, HEALTH_HTTP, HEALTH_TCP } kind;
    double interval, timeout, start; /* start: failures do not count before */
    unsigned retries, port;
    const char *path;  /* http */
    const char **test; /* the command and its arguments */
    size_t test_count;
};

struct container {
    enum kind kind;
    const char *name, *directory, *namespace;
    enum restart restart;
    bool halt; /* onfail halt */
    unsigned limit; /* onshutdown: seconds that it may take; 0: the machine's default */
    struct step *steps;
    size_t step_count;
    struct interface *interfaces;
    size_t interface_count;
    struct kept_namespace *kept;
    size_t kept_count;
    struct health health;
};

struct volume {
    const char *name, *directory;
    bool readonly;
};

/* All strings point into `text`. */
struct plan {
    char *text;
    struct volume *volumes;
    size_t volume_count;
    struct container *containers;
    size_t container_count;
    char **refused; /* what is wrong with each entry that was left out */
    size_t refused_count;
};

/* Takes `text` (allocated, NUL behind `length` bytes) over, also when it fails. 0, or -1 with what is wrong in
 * `error`. */
int plan_parse(struct plan *plan, char *text, size_t length, char *error, size_t error_size);
/* Reads the file; -1 with `error` empty when there is none. */
int plan_read(struct plan *plan, const char *path, char *error, size_t error_size);
void plan_free(struct plan *plan);
#define scoped_plan __attribute__((cleanup(plan_free))) struct plan

const struct container *plan_find(const struct plan *plan, enum kind kind, const char *name);
size_t plan_count(const struct plan *plan, enum kind kind);
