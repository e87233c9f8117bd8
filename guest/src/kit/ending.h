/* Ends. */
#pragma once

/* SIGTERM and SIGINT end the program with status 0. The first process of a container has to say so: what others get
 * by default the kernel keeps from it. */
void end_by_signals(void);
