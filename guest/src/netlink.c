/* Network interfaces for a container, by rtnetlink. */
#include "service.h"
#include "util.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct request {
    struct nlmsghdr header;
    struct ifinfomsg info;
    char room[512];
};

static struct rtattr *put(struct request *request, unsigned short type, const void *data, size_t length)
{
    struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(length);
    if (length)
        memcpy(RTA_DATA(attribute), data, length);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (uint32_t)RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static void put_string(struct request *request, unsigned short type, const char *text)
{
    put(request, type, text, strlen(text) + 1);
}

static void close_nest(struct request *request, struct rtattr *nest)
{
    nest->rta_len = (unsigned short)((char *)request + request->header.nlmsg_len - (char *)nest);
}

/* Sends it and reads the kernel's verdict: 0, or -1 with errno. */
static int talk(struct request *request)
{
    scoped_fd sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct {
        struct nlmsghdr header;
        struct nlmsgerr verdict;
        char rest[1024];
    } answer;
    if (sock < 0 || send(sock, request, request->header.nlmsg_len, 0) < 0)
        return -1;
    ssize_t got = recv(sock, &answer, sizeof(answer), 0);
    if (got < (ssize_t)(sizeof(answer.header) + sizeof(answer.verdict)) || answer.header.nlmsg_type != NLMSG_ERROR) {
        errno = EPROTO;
        return -1;
    }
    errno = -answer.verdict.error;
    return answer.verdict.error ? -1 : 0;
}

static struct request new_request(unsigned short flags)
{
    return (struct request){
        .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                   .nlmsg_type = RTM_NEWLINK,
                   .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags)},
        .info = {.ifi_family = AF_UNSPEC},
    };
}

/* `pid` 0: in our own namespace. */
static int add_link(const struct interface *wanted, pid_t pid)
{
    struct request request = new_request(NLM_F_CREATE | NLM_F_EXCL);
    put_string(&request, IFLA_IFNAME, wanted->name);
    if (pid)
        put(&request, IFLA_NET_NS_PID, &(uint32_t){(uint32_t)pid}, sizeof(uint32_t));
    struct rtattr *link = put(&request, IFLA_LINKINFO, NULL, 0);
    put_string(&request, IFLA_INFO_KIND, wanted->add);
    if (*wanted->peer) {
        struct rtattr *data = put(&request, IFLA_INFO_DATA, NULL, 0);
        struct rtattr *peer = put(&request, VETH_INFO_PEER, &(struct ifinfomsg){0}, sizeof(struct ifinfomsg));
        put_string(&request, IFLA_IFNAME, wanted->peer);
        close_nest(&request, peer);
        close_nest(&request, data);
    }
    close_nest(&request, link);
    return talk(&request);
}

static int delete_link(const char *name)
{
    struct request request = new_request(0);
    request.header.nlmsg_type = RTM_DELLINK;
    request.info.ifi_index = (int)if_nametoindex(name);
    return request.info.ifi_index ? talk(&request) : -1;
}

static int move_link(const char *name, pid_t pid)
{
    struct request request = new_request(0);
    request.info.ifi_index = (int)if_nametoindex(name);
    if (!request.info.ifi_index)
        return -1;
    put(&request, IFLA_NET_NS_PID, &(uint32_t){(uint32_t)pid}, sizeof(uint32_t));
    return talk(&request);
}

int net_interface(const struct interface *wanted, pid_t pid, char error[static ERROR_MAX])
{
    bool veth = *wanted->peer || strcmp(wanted->add, "veth") == 0;
    struct interface made = *wanted;
    if (veth)
        made.add = "veth";
    const char *doing = "move";
    int result = 0;
    bool move = !*made.add || veth || made.in_root;
    if (veth && !*made.peer) {
        errno = EINVAL;
        doing = "a veth without peer";
        result = -1;
    } else if (*made.add) {
        doing = "add";
        result = add_link(&made, move ? 0 : pid);
        /* A pair of an earlier start goes with its peer, wherever its other end is. */
        if (result < 0 && errno == EEXIST && veth && delete_link(made.peer) == 0)
            result = add_link(&made, 0);
    }
    if (result == 0 && move) {
        doing = "move";
        result = move_link(made.name, pid);
    }
    if (result < 0)
        snprintf(error, ERROR_MAX, "interface %s: %s: %s", made.name, doing, strerror(errno));
    return result;
}
