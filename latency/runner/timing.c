#include "timing.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

static const double STEADY = 0.05; /* warm-up ends when its last runs are at most that much faster than those before */
enum { WARMUP_LIMIT = 5, RESAMPLES = 1000 };
/* measurement.py looks at the same interval with other draws: stop a little inside of what it will accept. */
static const double MARGIN = 0.95;

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static double quantile(const int64_t *sorted, long count, double share) {
  double place = share * (double)(count - 1);
  long low = (long)place;
  if (low + 1 >= count) return (double)sorted[count - 1];
  return (double)sorted[low] + (place - (double)low) * (double)(sorted[low + 1] - sorted[low]);
}

static int run_block(Timed *model, long runs, int64_t *wall_ns, int64_t *cpu_ns) {
  for (long i = 0; i < runs; i++) {
    int64_t cpu_began = clock_ns(CLOCK_THREAD_CPUTIME_ID), began = clock_ns(CLOCK_MONOTONIC);
    if (run_once(&model->loaded)) return 1;
    wall_ns[i] = clock_ns(CLOCK_MONOTONIC) - began;
    cpu_ns[i] = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_began;
  }
  return 0;
}

int warm_up(Timed *model, const Job *job) {
  long chunk = job->warmup_runs / 2 > 0 ? job->warmup_runs / 2 : 1, taken = 0;
  int64_t *wall = room_for(sizeof *wall * (size_t)chunk), *cpu = room_for(sizeof *cpu * (size_t)chunk), began = clock_ns(CLOCK_MONOTONIC);
  double before = 0, latest;
  for (;;) {
    if (run_block(model, chunk, wall, cpu)) return 1;
    qsort(wall, (size_t)chunk, sizeof *wall, by_value);
    latest = quantile(wall, chunk, 0.5);
    taken += chunk;
    double spent_ms = (double)(clock_ns(CLOCK_MONOTONIC) - began) / 1e6;
    int steady = before > 0 && latest >= before * (1 - STEADY);
    if (taken >= job->warmup_runs && spent_ms >= job->warmup_ms && (steady || spent_ms >= WARMUP_LIMIT * job->warmup_ms)) break;
    before = latest;
  }
  free(wall), free(cpu);
  model->warmup_ns = clock_ns(CLOCK_MONOTONIC) - began;
  double fits = job->block_ms * 1e6 / (latest > 1 ? latest : 1);
  model->block = fits < (double)job->block_runs ? (long)fits : job->block_runs;
  if (model->block < 1) model->block = 1;
  model->next_check = job->min_rounds;
  return 0;
}

typedef struct { int64_t value; int round; } Kept;

/* The samples that were not preempted; the CPU times of all where most were. Rounds are numbered without gaps. */
static long keep(const Timed *model, int with_cpu_time, Kept *kept, int *rounds) {
  long clean = 0, count = 0;
  for (long i = 0; i < model->runs; i++)
    clean += (double)(model->wall_ns[i] - model->cpu_ns[i]) <= 0.02 * (double)model->wall_ns[i] + 2000;
  int all = !with_cpu_time || clean * 2 < model->runs, last = -1;
  *rounds = 0;
  for (long i = 0; i < model->runs; i++) {
    int fits = (double)(model->wall_ns[i] - model->cpu_ns[i]) <= 0.02 * (double)model->wall_ns[i] + 2000;
    if (!all && !fits) continue;
    if (model->round_of[i] != last) (*rounds)++;
    last = model->round_of[i];
    kept[count++] = (Kept){with_cpu_time && all ? model->cpu_ns[i] : model->wall_ns[i], *rounds - 1};
  }
  return count;
}

static int64_t resampled_median(const Kept *sorted, long count, int rounds, int *draws, const int *sizes, uint64_t *state) {
  long total = 0, weight = 0;
  memset(draws, 0, sizeof *draws * (size_t)rounds);
  for (int i = 0; i < rounds; i++) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    int drawn = (int)((*state >> 33) % (uint64_t)rounds);
    draws[drawn]++;
    total += sizes[drawn];
  }
  for (long i = 0; i < count; i++)
    if ((weight += draws[sorted[i].round]) * 2 >= total) return sorted[i].value;
  return sorted[count - 1].value;
}

/* Half of the median's 95 % interval over the median: bootstrap over whole rounds, as in measurement.py. */
double half_width(const Timed *model, int with_cpu_time) {
  int rounds = 0;
  Kept *kept = room_for(sizeof *kept * (size_t)model->runs);
  long count = keep(model, with_cpu_time, kept, &rounds);
  int *draws = room_for(sizeof *draws * (size_t)rounds), *sizes = room_for(sizeof *sizes * (size_t)rounds);
  int64_t medians[RESAMPLES];
  uint64_t state = 1;
  for (long i = 0; i < count; i++) sizes[kept[i].round]++;
  qsort(kept, (size_t)count, sizeof *kept, by_value); /* a Kept begins with its value */
  for (int i = 0; i < RESAMPLES; i++) medians[i] = resampled_median(kept, count, rounds, draws, sizes, &state);
  qsort(medians, RESAMPLES, sizeof *medians, by_value);
  double middle = (double)(kept[(count - 1) / 2].value + kept[count / 2].value) / 2;
  double width = (quantile(medians, RESAMPLES, 0.975) - quantile(medians, RESAMPLES, 0.025)) / 2 / (middle > 0 ? middle : 1);
  free(kept), free(draws), free(sizes);
  return width;
}

static int is_done(Timed *model, const Job *job) {
  double spent_ms = 0;
  for (long i = 0; i < model->runs; i++) spent_ms += (double)model->wall_ns[i] / 1e6;
  if (model->runs >= job->max_samples || spent_ms >= job->max_ms) return 1;
  if (model->rounds < model->next_check || model->runs < job->min_samples || spent_ms < job->min_ms) return 0;
  /* The interval costs milliseconds: looked at after every 20 % more rounds, not after each. */
  model->next_check = model->rounds + (model->rounds / 5 > 0 ? model->rounds / 5 : 1);
  return half_width(model, job->threads == 1) <= job->half_width * MARGIN;
}

/* One block; after a run that is not timed where another model has just used the caches. */
static int add_block(Timed *model, const Job *job, int lead_in) {
  if (lead_in && run_once(&model->loaded)) return 1;
  if (model->runs + model->block > model->room) {
    model->room = model->room * 2 + model->block + 64;
    model->wall_ns = realloc(model->wall_ns, sizeof *model->wall_ns * (size_t)model->room);
    model->cpu_ns = realloc(model->cpu_ns, sizeof *model->cpu_ns * (size_t)model->room);
    model->round_of = realloc(model->round_of, sizeof *model->round_of * (size_t)model->room);
    if (!model->wall_ns || !model->cpu_ns || !model->round_of) give_up("out of memory");
  }
  if (run_block(model, model->block, model->wall_ns + model->runs, model->cpu_ns + model->runs)) return 1;
  for (long i = 0; i < model->block; i++) model->round_of[model->runs + i] = (int)model->rounds;
  model->runs += model->block;
  model->rounds++;
  model->done = is_done(model, job);
  return 0;
}

int time_rounds(Timed *models, int count, const Job *job) {
  for (int first = 0;; first = (first + 1) % count) {
    int waiting[1024], n = 0; /* those of this round are fixed before it begins */
    for (int i = 0; i < count; i++) {
      int index = (first + i) % count;
      if (!models[index].done) waiting[n++] = index;
    }
    if (!n) return 0;
    if (getppid() != job->parent) give_up("the host is gone");
    for (int i = 0; i < n; i++)
      if (add_block(&models[waiting[i]], job, n > 1)) return 1;
  }
}
