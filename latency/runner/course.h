/* How the device fares while models are timed: frequency and temperature by round, and when to let it cool. */
#ifndef COURSE_H
#define COURSE_H
#include "job.h"

typedef struct {
  const Job *job;
  long rounds, room;
  int *mhz, *milli_c; /* by round; 0 where it is not told */
  int zones[16], zone_count;
  int latest_milli_c, first_milli_c, fastest_mhz;
  int64_t looked_ns;
  long slow_rounds, hot_rounds, pauses; /* rounds in a row that were slow, and too slow to go on; pauses taken */
  double paused_ms;
} Course;

typedef enum { GO_ON, REDO, END } Verdict;

long memory_kib(const char *what); /* of this process, by the name it has in /proc, such as "VmRSS:"; 0 where it is not told */
void begin_course(Course *course, const Job *job);
void note_round(Course *course);
/* What to do after a round in which the anchor took so much of its reference time (0: not known); REDO has left it to cool.
   A slow round counts only with a sign of heat, where the device shows temperatures: waiting cures nothing else. */
Verdict judge_round(Course *course, double slowness);
enum { IN_A_ROW = 3 }; /* slow rounds before something is done about them */
#endif
