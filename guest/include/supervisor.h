/* The services' keeper: its state, shared by supervisor.c (one service), keeper.c (the loop around all) and adopt.c (a
 * keeper that takes over what an earlier one started). */
#pragma once

#include "service.h"

#include <stdint.h>

#define STOP_GRACE 10.0 /* seconds between SIGTERM and SIGKILL */

struct service {
    const struct container *plan;
    char *step, *out, *err, *pid_file;
    char *end; /* containerd: what ctr said when it removed the task */
    enum { STOPPED, CREATING, STARTING, RUNNING, CLEANING, WAITING } state;
    /* How far it ever came: its mounts are there; a start was tried; its container is there, and can be started again. */
    enum { NOTHING, MOUNTED, TRIED, MADE } made;
    enum { WANT_RUN, WANT_STOP, WANT_RESTART } wanted;
    enum { PENDING, GOOD, BAD } first; /* what came of its first start */
    pid_t helper, pid; /* the runtime's program at work; the container's first process */
    int pidfd;         /* its end, when it is not our child; -1 */
    int status, tries; /* status: a wait status, of the last end */
    double asked, started, ended, due, kill_at, helper_since; /* started: 0 while it does not run */
    unsigned restarts;
    struct policy policy;
    enum healthy { HEALTH_UNKNOWN, HEALTH_STARTING, HEALTH_GOOD, HEALTH_BAD } healthy;
    pid_t probe;       /* the check at work; 0 */
    double probe_due;
    unsigned unwell;   /* checks that failed in a row */
    int client;        /* who waits for start, stop or restart; -1 */
    char error[ERROR_MAX];
};

/* An end of a process whose pid we did not know yet. */
struct orphan {
    pid_t pid;
    int status;
    double when;
};

struct supervisor {
    struct service *services;
    size_t count;
    bool containerd;
    struct runtime runtime;
    struct daemon daemon, copier; /* containerd; the copier of logs */
    struct orphan *orphans;
    size_t orphan_at;
    int signals, control, settled_pipe;
};

void service_begin(struct supervisor *all, struct service *one);
void service_stop(struct service *one);
void service_ended(struct supervisor *all, struct service *one, int status); /* its traces are removed next */
void helper_ended(struct supervisor *all, struct service *one, int status);
double service_tick(struct supervisor *all, struct service *one, double limit);
void orphan_keep(struct supervisor *all, pid_t pid, int status);

/* --- health.c */
void health_begin(struct service *one); /* it runs now */
void health_stop(struct service *one);  /* it does not any more */
void health_ended(struct service *one, int status);
double health_tick(struct supervisor *all, struct service *one, double limit); /* when to look again */
const char *health_word(const struct service *one);

/* --- adopt.c: what the next keeper has to know */
/* When the kernel started this process, in its ticks; 0: there is none. With the pid it names a process for ever. */
uint64_t started_at(pid_t pid);
void note_process(const char *name, pid_t pid, const char *word);        /* STATE_DIR/.NAME.pid: "PID START WORD" */
pid_t noted_process(const char *name, char *word, size_t room);          /* 0: it does not run any more */
void service_note(const struct service *one);
/* Takes over what an earlier keeper noted; false when there is nothing. */
bool service_adopt(struct supervisor *all, struct service *one);
/* The wait status of a process that is not our child, from PID 1, which reaped it. */
int end_take(pid_t pid);
void end_forget(pid_t pid);

/* control.c */
void control_accept(struct supervisor *all);
void control_settle(struct supervisor *all, struct service *one);
