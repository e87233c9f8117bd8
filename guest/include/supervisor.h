/* The services' keeper: its state, shared by supervisor.c (one service) and keeper.c (the loop around all). */
#pragma once

#include "service.h"

#define STOP_GRACE 10.0 /* seconds between SIGTERM and SIGKILL */

struct service {
    const struct container *plan;
    char *step, *out, *err, *pid_file;
    char *end; /* containerd: what ctr said when it removed the task */
    enum { STOPPED, CREATING, STARTING, RUNNING, CLEANING, WAITING } state;
    pid_t helper, pid; /* the runtime's program at work; the container's first process */
    int pidfd;         /* containerd: its end */
    int status, tries;
    double asked, started, died, due, kill_at, state_since, helper_since;
    bool mounted, attempted, known, ran, stopping;
    bool settled; /* the first start came to a result, good or bad */
    unsigned restarts;
    struct policy policy;
    int client;        /* who waits for start, stop or restart; -1 */
    bool again;        /* restart: start when it has stopped */
    char error[ERROR_MAX];
};

struct orphan {
    pid_t pid;
    int status;
};

struct supervisor {
    struct service *services;
    size_t count;
    bool containerd;
    struct runtime runtime;
    struct containerd daemon;
    struct orphan orphans[32]; /* ends of processes whose pid we did not know yet */
    size_t orphan_at;
    int signals, control, settled_pipe;
};

void service_begin(struct supervisor *all, struct service *one);
void service_stop(struct service *one);
void service_ended(struct supervisor *all, struct service *one, int status);
void helper_ended(struct supervisor *all, struct service *one, int status);
double service_tick(struct supervisor *all, struct service *one, double limit);
bool orphan_take(struct supervisor *all, pid_t pid, int *status);
/* control.c */
void control_accept(struct supervisor *all);
void control_settle(struct supervisor *all, struct service *one);
