/* PID 1's care for the services' keeper. */
#pragma once

#include "service.h"

struct warden {
    double since, due; /* when the keeper was started the last time; when to start it; 0: it runs, or there is none */
    struct policy policy;
    char word[16];     /* what it was: services, system-init */
};

struct loop;
/* A child of ours ended that nobody waits for. */
void warden_reaped(struct loop *loop, pid_t pid, int status);
void warden_step(struct loop *loop);
