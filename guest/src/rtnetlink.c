/* Messages to the kernel about links, addresses and routes: rtnetlink(7). What goes into one has bounds: names come from
 * labels and from metadata services. */
#include "rtnetlink.h"
#include "util.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

void *netlink_begin(struct netlink *message, unsigned type, unsigned flags, size_t size)
{
    *message = (struct netlink){.header = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(size),
                                           .nlmsg_type = (uint16_t)type,
                                           .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
    return message->room;
}

void netlink_put(struct netlink *message, unsigned type, const void *bytes, size_t length)
{
    size_t at = NLMSG_ALIGN(message->header.nlmsg_len), room = sizeof(message->header) + NETLINK_ROOM;
    if (message->full || length > NETLINK_ROOM || at + RTA_SPACE(length) > room) {
        message->full = true;
        return;
    }
    struct rtattr *attribute = (struct rtattr *)((char *)message + at);
    attribute->rta_type = (unsigned short)type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(length);
    if (bytes && length)
        memcpy(RTA_DATA(attribute), bytes, length);
    message->header.nlmsg_len = (uint32_t)(at + RTA_SPACE(length));
}

void netlink_put_text(struct netlink *message, unsigned type, const char *text)
{
    netlink_put(message, type, text, strlen(text) + 1);
}

size_t netlink_nest(struct netlink *message, unsigned type, size_t body)
{
    size_t at = NLMSG_ALIGN(message->header.nlmsg_len);
    netlink_put(message, type, NULL, body);
    return at;
}

void netlink_end(struct netlink *message, size_t nest)
{
    if (!message->full)
        ((struct rtattr *)((char *)message + nest))->rta_len = (unsigned short)(message->header.nlmsg_len - nest);
}

int netlink_talk(struct netlink *message)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr verdict;
        char rest[NETLINK_ROOM];
    } answer;
    if (message->full) {
        errno = E2BIG;
        return -1;
    }
    scoped_fd sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (sock < 0 || send(sock, message, message->header.nlmsg_len, 0) < 0)
        return -1;
    ssize_t got = recv(sock, &answer, sizeof(answer), 0);
    if (got < (ssize_t)(sizeof(answer.header) + sizeof(answer.verdict)) || answer.header.nlmsg_type != NLMSG_ERROR) {
        errno = EPROTO;
        return -1;
    }
    errno = -answer.verdict.error;
    return answer.verdict.error ? -1 : 0;
}
