/* Starting programs. Every descriptor of ours is close-on-exec; a child gets exactly its standard three. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct spawn {
    const char *const *argv; /* argv[0] is the path; there is no search */
    const char *directory;   /* working directory, or NULL */
    const int *out, *err;    /* descriptors for standard output and error; NULL: ours */
    bool keep_session;       /* stay in our session instead of leading a new one */
    int (*first)(const void *with); /* what the child does itself: its exit status, or -1 to execute the program after all */
    const void *with;
};

/* Standard input is /dev/null. Returns the pid, or -1 with errno; a program that can't be executed is -1 too (with
 * `first`, which is not waited for, it is exit status 127). */
pid_t spawn(const struct spawn *what);
/* Spawns and waits. Returns the wait status, or -1 with errno. */
int spawn_wait(const struct spawn *what);
/* Waits for one child; interrupted waits go on. */
int wait_for(pid_t pid);

/* As a shell counts: the exit status, or 128 + the signal. */
int status_code(int wait_status);
int status_signal(int wait_status);
