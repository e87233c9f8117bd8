/* Services as containerd's tasks, through its API instead of ctr, which costs the start of a large program each time. */
#pragma once

#include "plan.h"

struct task_call {
    const char *verb; /* run, start or delete */
    const struct container *container;
    const char *pid_file, *socket;
    const char *spec;    /* run: the file with the OCI configuration */
    const char *runtime; /* run: the runtime's program, "" for runc */
    int seconds;         /* how long containerd may be silent */
};

/* Does it. run and start: 0, the pid is in the file. delete: the status that the task ended with.
 * -1: it did not work and nothing of it is left, so that ctr can be asked, which says why. */
int task_do(const void *call);
