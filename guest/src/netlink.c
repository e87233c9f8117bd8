/* Network interfaces for a container, by rtnetlink. */
#include "rtnetlink.h"
#include "service.h"
#include "util.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static struct ifinfomsg *begin(struct netlink *message, unsigned type, unsigned flags)
{
    struct ifinfomsg *info = netlink_begin(message, type, flags, sizeof(*info));
    info->ifi_family = AF_UNSPEC;
    return info;
}

/* `pid` 0: in our own namespace. */
static int add_link(const struct interface *wanted, pid_t pid)
{
    struct netlink message;
    begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    netlink_put_text(&message, IFLA_IFNAME, wanted->name);
    if (pid)
        netlink_put(&message, IFLA_NET_NS_PID, &(uint32_t){(uint32_t)pid}, sizeof(uint32_t));
    size_t link = netlink_nest(&message, IFLA_LINKINFO, 0);
    netlink_put_text(&message, IFLA_INFO_KIND, wanted->add);
    if (*wanted->peer) {
        size_t data = netlink_nest(&message, IFLA_INFO_DATA, 0);
        size_t peer = netlink_nest(&message, VETH_INFO_PEER, sizeof(struct ifinfomsg));
        netlink_put_text(&message, IFLA_IFNAME, wanted->peer);
        netlink_end(&message, peer);
        netlink_end(&message, data);
    }
    netlink_end(&message, link);
    return netlink_talk(&message);
}

static int delete_link(const char *name)
{
    struct netlink message;
    struct ifinfomsg *info = begin(&message, RTM_DELLINK, 0);
    info->ifi_index = (int)if_nametoindex(name);
    return info->ifi_index ? netlink_talk(&message) : -1;
}

static int move_link(const char *name, pid_t pid)
{
    struct netlink message;
    struct ifinfomsg *info = begin(&message, RTM_NEWLINK, 0);
    info->ifi_index = (int)if_nametoindex(name);
    if (!info->ifi_index)
        return -1;
    netlink_put(&message, IFLA_NET_NS_PID, &(uint32_t){(uint32_t)pid}, sizeof(uint32_t));
    return netlink_talk(&message);
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
