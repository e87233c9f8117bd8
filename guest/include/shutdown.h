#pragma once

#include "loop.h"

/* Runs /etc/shutdown.d, ends every process, unmounts. Then, unless `machine` is false (a container), the machine stops
 * or restarts and this does not return. */
void shut_down(struct loop *loop, enum wish wish, bool machine);
void unmount_all(void);
/* Is there a process, other than ourselves and the kernel's, that SIGTERM can still end? */
bool anyone_ending(void);
