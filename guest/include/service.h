/* The parts of /usr/bin/service. */
#pragma once

#include "plan.h"
#include "tasks.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define STATE_DIR "/run/linuxkit"
#define NOTED STATE_DIR "/.%s.pid" /* of our own processes: no service's name begins with a dot */
#define KEEPER "supervisor"
#define KEEPER_FILE STATE_DIR "/.supervisor.pid" /* while it is there, there is to be a keeper */
#define CONTROL_SOCKET STATE_DIR "/service.sock"
#define CONTAINERD_NAMESPACE "services.linuxkit"
#define CONTAINERD_SOCKET "/run/containerd/containerd.sock"
#define TAIL_LINES 10
#define ERROR_MAX 300

/* --- prepare.c: what a container needs around it. 0, or -1 with the reason in `error`. */
int prepare_files(const struct container *container, char error[static ERROR_MAX]);
int prepare_process(const struct container *container, pid_t pid, char error[static ERROR_MAX]);
bool needs_process(const struct container *container); /* is there anything for prepare_process() */
void undo_files(const struct container *container);    /* unmounts the bundle's root and scratch space */
int prepare_volumes(const struct plan *plan);          /* how many failed */

/* --- netlink.c */
int net_interface(const struct interface *wanted, pid_t pid, char error[static ERROR_MAX]);

/* --- runtime.c: the OCI runtime's command lines */
struct runtime {
    const char *path; /* NULL: there is none */
    bool debug;       /* linuxkit.runc_debug=1 */
};
#define RUNTIME_ARGS 12
struct runtime runtime_find(void);
/* `verb` is run, run-detached, create, start or delete; the pid goes to STATE_DIR/NAME.pid. */
void runtime_args(const struct runtime *runtime, const char *verb, const struct container *container,
                  const char *pid_file, const char *argv[RUNTIME_ARGS]);
char *pid_file_of(const struct container *container);

/* --- logs.c */
struct tail {
    char *text[4];
    const char *lines[TAIL_LINES];
    size_t count;
};
int log_open(const char *path, bool truncate); /* /dev/null when it can't be written */
/* What is kept of a log to which `total` bytes came, to the console: the last MiB of it. */
void log_show(const char *path, unsigned long long total);
/* The last lines of the second log, filled up with the first one's in front. */
void tail_read(struct tail *tail, const char *out, const char *err);
void tail_free(struct tail *tail);
#define scoped_tail __attribute__((cleanup(tail_free))) struct tail

/* --- policy.c: when to start again */
struct policy {
    unsigned failures; /* quick ends in a row */
};
/* Seconds until the next start, or -1 for never. `healthy` is how long the service ran. */
double policy_next(struct policy *policy, enum restart restart, int status, double healthy);

/* --- once.c: onboot and onshutdown */
int run_containers(const struct plan *plan, enum kind kind);

/* --- supervisor.c */
int supervise(const struct plan *plan, bool containerd);

/* --- containerd.c */
#define CONTAINERD_OUT "/var/log/containerd.out.log"
#define CONTAINERD_ERR "/var/log/containerd.log"
struct daemon {
    pid_t pid;
    int pidfd;         /* its end, when it is not our child; -1 */
    double since, due; /* due: when to start it again; 0: it runs */
    struct policy policy;
};
int containerd_start(struct daemon *containerd);
/* Until its socket answers. -1: it does not in time; or it ended, with that wait status, and its pid is 0. */
int containerd_wait(struct daemon *containerd, double seconds, int *status);
void containerd_tail(struct tail *tail);
bool containerd_has_past(void);                        /* did an earlier boot leave containers on a kept disk */
void containerd_remove(const char *namespace, const char *id); /* a container and its task */
void containerd_forget(const struct plan *plan);       /* removes them */
const char *namespace_of(const struct container *container);
/* What to ask containerd for: by ourselves (tasks.c), and with ctr's command line, should that fail. The strings that
 * are made live in `made`. `verb` is run, start or delete. */
struct command {
    struct task_call task;
    const char *argv[24];
    char *made[4];
    size_t argc, made_count;
};
void containerd_args(struct command *command, const char *verb, const struct container *container,
                     const char *pid_file);
void command_free(struct command *command);
/* The status that the task ended with, from what `ctr task delete` wrote and its own status; -1: ctr itself failed. */
int containerd_end_status(const char *path, int ctr_status);
bool containerd_forgot(const char *path); /* there it says that there is no such task (any more) */
int hook_main(const struct plan *plan, const char *name); /* createRuntime hook: the state comes on standard input */

/* --- control.c: service start|stop|restart|status */
int control_listen(void);
int control_ask(const char *verb, const char *name);
