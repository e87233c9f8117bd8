/* host-timesync-daemon: sets the system's clock from the hardware's whenever the host connects, as when it wakes up. */
#define _GNU_SOURCE
#include "ending.h"
#include "flags.h"
#include "util.h"
#include "vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <linux/vm_sockets.h>

static int set_clock(const char *path)
{
    struct rtc_time rtc;
    scoped_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RTC_RD_TIME, &rtc) < 0)
        return -1;
    struct tm parts = {.tm_sec = rtc.tm_sec, .tm_min = rtc.tm_min, .tm_hour = rtc.tm_hour,
                       .tm_mday = rtc.tm_mday, .tm_mon = rtc.tm_mon, .tm_year = rtc.tm_year};
    struct timeval value = {.tv_sec = timegm(&parts)};
    return settimeofday(&value, NULL);
}

int main(int argc, char **argv)
{
    long cid = VMADDR_CID_ANY, port = 0;
    const char *rtc = "/dev/rtc0";
    const struct flag flags[] = {
        {"cid", FLAG_NUMBER, &cid, "address to listen at (any)"},
        {"port", FLAG_NUMBER, &port, "vsock port to listen at"},
        {"rtc", FLAG_TEXT, &rtc, "the hardware's clock (/dev/rtc0)"},
    };
    int at = flags_read("host-timesync-daemon", "", flags, COUNT(flags), argc, argv);
    if (at != argc || port < 1 || port > UINT32_MAX) {
        fputs("host-timesync-daemon: -port is needed\n", stderr);
        return 2;
    }
    scoped_fd listener = vsock_listen((unsigned)cid, (unsigned)port);
    if (listener < 0) {
        fprintf(stderr, "host-timesync-daemon: vsock port %ld: %s\n", port, strerror(errno));
        return 1;
    }
    end_by_signals();
    for (;;) {
        scoped_fd client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0) {
            if (errno != EINTR && errno != ECONNABORTED)
                pause_ms(100);
        } else if (set_clock(rtc) < 0) {
            fprintf(stderr, "host-timesync-daemon: %s: %s\n", rtc, strerror(errno));
        } else {
            fputs("host-timesync-daemon: the clock is set\n", stderr);
        }
    }
}
