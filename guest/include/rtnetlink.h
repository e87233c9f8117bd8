/* Messages to the kernel about links, addresses and routes: rtnetlink(7). */
#pragma once

#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>

#define NETLINK_ROOM 1024 /* bytes of a message behind its header */

struct netlink {
    struct nlmsghdr header;
    char room[NETLINK_ROOM];
    bool full; /* something did not fit: the message is not sent */
};

/* Begins a message; its zeroed body (ifinfomsg, ifaddrmsg, rtmsg) of `size` bytes is to be filled in. */
void *netlink_begin(struct netlink *message, unsigned type, unsigned flags, size_t size);
void netlink_put(struct netlink *message, unsigned type, const void *bytes, size_t length);
void netlink_put_text(struct netlink *message, unsigned type, const char *text);
/* What is put between the two lies inside an attribute; `body` bytes of zeros come first. */
size_t netlink_nest(struct netlink *message, unsigned type, size_t body);
void netlink_end(struct netlink *message, size_t nest);
/* Sends it and reads the kernel's verdict: 0, or -1 with errno; E2BIG: it did not fit. */
int netlink_talk(struct netlink *message);
