/* When a service that ended starts again. */
#include "service.h"

#define FIRST 0.2   /* seconds before the first new start */
#define THEN 1.0    /* before the second, and twice as long each time */
#define LONGEST 60.0
#define HEALTHY 60.0 /* whoever ran this long starts from the beginning again */

double policy_next(struct policy *policy, enum restart restart, int status, double healthy)
{
    if (restart == RESTART_NO || (restart == RESTART_ON_FAILURE && status == 0))
        return -1;
    if (healthy >= HEALTHY)
        policy->failures = 0;
    double delay = THEN;
    if (policy->failures == 0)
        delay = FIRST;
    for (unsigned i = 1; i < policy->failures && delay < LONGEST; i++)
        delay *= 2;
    policy->failures++;
    return delay < LONGEST ? delay : LONGEST;
}
