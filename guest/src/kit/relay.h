/* Bytes between two sockets. */
#pragma once

/* Copies both ways until both sides have ended; an end on one side is passed on to the other. */
void relay(int left, int right);
