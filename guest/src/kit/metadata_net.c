/* The plan of metadata_metal.c, carried out by rtnetlink. */
#include "metadata.h"
#include "rtnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int set_link(const char *name, unsigned flags, unsigned change, const char *new_name, const char *master)
{
    struct netlink request;
    struct ifinfomsg *link = netlink_begin(&request, RTM_NEWLINK, 0, sizeof(*link));
    link->ifi_index = (int)if_nametoindex(name);
    link->ifi_flags = flags;
    link->ifi_change = change;
    if (!link->ifi_index)
        return -1;
    if (new_name)
        netlink_put_text(&request, IFLA_IFNAME, new_name);
    if (master) {
        uint32_t index = if_nametoindex(master);
        if (!index)
            return -1;
        netlink_put(&request, IFLA_MASTER, &index, sizeof(index));
    }
    return netlink_talk(&request);
}

/* A fresh `bonding` module brings a bond0 of its own: that one is changed then. */
static int make_bond(const char *name, unsigned char mode)
{
    struct netlink request;
    netlink_begin(&request, RTM_NEWLINK, NLM_F_CREATE, sizeof(struct ifinfomsg));
    netlink_put_text(&request, IFLA_IFNAME, name);
    size_t info = netlink_nest(&request, IFLA_LINKINFO, 0);
    netlink_put_text(&request, IFLA_INFO_KIND, "bond");
    size_t data = netlink_nest(&request, IFLA_INFO_DATA, 0);
    netlink_put(&request, IFLA_BOND_MODE, &mode, sizeof(mode));
    netlink_put(&request, IFLA_BOND_MIIMON, &(uint32_t){100}, sizeof(uint32_t)); /* ms; without it a dead link is not noticed */
    netlink_end(&request, data);
    netlink_end(&request, info);
    return netlink_talk(&request);
}

/* ADDRESS/BITS; the size of the address, or 0. */
static size_t parse_network(const char *text, unsigned char *bytes, int *family, unsigned *bits)
{
    char address[64];
    int end = 0;
    *family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (sscanf(text, "%63[0-9a-fA-F.:]/%3u%n", address, bits, &end) != 2 || text[end] ||
        inet_pton(*family, address, bytes) != 1)
        return 0;
    return *family == AF_INET ? 4 : 16;
}

static int change_address(unsigned type, unsigned flags, int index, int family, const void *bytes, unsigned bits)
{
    size_t size = family == AF_INET ? 4 : 16;
    struct netlink request;
    struct ifaddrmsg *address = netlink_begin(&request, type, flags, sizeof(*address));
    *address = (struct ifaddrmsg){
        .ifa_family = (unsigned char)family, .ifa_prefixlen = (unsigned char)bits, .ifa_index = (unsigned)index};
    netlink_put(&request, IFA_LOCAL, bytes, size);
    netlink_put(&request, IFA_ADDRESS, bytes, size);
    return netlink_talk(&request);
}

static int add_address(const char *name, const char *text)
{
    unsigned char bytes[16];
    int family, index = (int)if_nametoindex(name);
    unsigned bits;
    if (!index || !parse_network(text, bytes, &family, &bits)) {
        errno = index ? EINVAL : ENODEV;
        return -1;
    }
    return change_address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, family, bytes, bits);
}

static int add_route(const char *name, const char *text, const char *gateway)
{
    unsigned char bytes[16], via[16];
    int family;
    unsigned bits;
    uint32_t index = if_nametoindex(name);
    size_t size = parse_network(text, bytes, &family, &bits);
    if (!index || !size || inet_pton(family, gateway, via) != 1) {
        errno = index ? EINVAL : ENODEV;
        return -1;
    }
    struct netlink request;
    struct rtmsg *route = netlink_begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*route));
    /* ONLINK: a gateway of a /32 or /31 is on the link whatever the mask says */
    *route = (struct rtmsg){.rtm_family = (unsigned char)family, .rtm_dst_len = (unsigned char)bits,
                            .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                            .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST,
                            .rtm_flags = RTNH_F_ONLINK};
    if (bits)
        netlink_put(&request, RTA_DST, bytes, size);
    netlink_put(&request, RTA_GATEWAY, via, size);
    netlink_put(&request, RTA_OIF, &index, sizeof(index));
    return netlink_talk(&request);
}

/* Removes what the kernel lists in one answer; true: there may be more. */
static bool remove_addresses(int index)
{
    _Alignas(struct nlmsghdr) char answer[16384];
    struct netlink request;
    netlink_begin(&request, RTM_GETADDR, NLM_F_DUMP, sizeof(struct ifaddrmsg));
    scoped_fd sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    bool removed = false, more = sock >= 0 && send(sock, &request, request.header.nlmsg_len, 0) >= 0;
    while (more) {
        ssize_t got = recv(sock, answer, sizeof(answer), 0);
        size_t left = got > 0 ? (size_t)got : 0;
        more = left > 0;
        for (struct nlmsghdr *at = (struct nlmsghdr *)answer; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
            if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR)
                more = false;
            struct ifaddrmsg *address = NLMSG_DATA(at);
            if (at->nlmsg_type != RTM_NEWADDR || (int)address->ifa_index != index)
                continue;
            const void *bytes = NULL;
            size_t size = IFA_PAYLOAD(at);
            for (struct rtattr *item = IFA_RTA(address); RTA_OK(item, size); item = RTA_NEXT(item, size))
                if (item->rta_type == IFA_LOCAL || (item->rta_type == IFA_ADDRESS && !bytes))
                    bytes = RTA_DATA(item);
            if (bytes && change_address(RTM_DELADDR, 0, index, address->ifa_family, bytes, address->ifa_prefixlen) == 0)
                removed = true;
        }
    }
    return removed;
}

static int take_down(const char *name)
{
    int index = (int)if_nametoindex(name);
    if (!index)
        return -1;
    remove_addresses(index);
    return set_link(name, 0, IFF_UP, NULL, NULL);
}

static int carry_out(const char *what, const char *link, const char *first, const char *second)
{
    return !strcmp(what, "down")      ? take_down(link)
           : !strcmp(what, "up")      ? set_link(link, IFF_UP, IFF_UP, NULL, NULL)
           : !strcmp(what, "name")    ? set_link(link, 0, 0, first, NULL)
           : !strcmp(what, "bond")    ? make_bond(link, (unsigned char)(*first - '0'))
           : !strcmp(what, "enslave") ? set_link(link, 0, 0, NULL, first)
           : !strcmp(what, "address") ? add_address(link, first)
                                      : add_route(link, first, second);
}

bool plan_apply(char *plan)
{
    bool complete = true;
    for (char *line; (line = next_line(&plan));) {
        char what[16] = "", link[16] = "", first[64] = "", second[64] = "";
        sscanf(line, "%15s %15s %63s %63s", what, link, first, second);
        detail("network: %s", line);
        if (carry_out(what, link, first, second) < 0) {
            note("network: %s: %s", line, strerror(errno));
            complete = false;
        }
    }
    return complete;
}
