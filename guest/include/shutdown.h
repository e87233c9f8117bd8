/* The end of the machine. */
#pragma once

#include "loop.h"

/* Runs /etc/shutdown.d, ends every process, unmounts. Then, unless `machine` is false (a container), the machine stops
 * or restarts and this does not return. */
void shut_down(struct loop *loop, enum wish wish, bool machine);
/* Seconds that one step of a shutdown may take: linuxkit.shutdown_timeout= on the command line, else 90. */
double shutdown_limit(void);
/* Swap, filesystems, loop devices and device-mapper's, until nothing more can be let go of; what stays is made read-only.
 * May take as long as disks and servers like. */
void teardown(void);
/* Is there a process, other than ourselves and the kernel's, that SIGTERM can still end? */
bool anyone_ending(void);
