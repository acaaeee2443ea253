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
    require_host(job);
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
  /* An anchor is there to be looked at, not to be known to a per cent: a quarter of a block's time. */
  double fits = job->block_ms * (model->is_anchor ? 0.25 : 1) * 1e6 / (latest > 1 ? latest : 1);
  model->block = fits < (double)job->block_runs ? (long)fits : job->block_runs;
  if (model->block < 1) model->block = 1;
  model->next_check = job->min_rounds;
  model->latest_ns = latest > 1 ? latest : 1;
  return 0;
}

/* The rule of preemption.py. */
static int undisturbed(int64_t wall_ns, int64_t cpu_ns) { return (double)(wall_ns - cpu_ns) <= 0.02 * (double)wall_ns + 2000; }

typedef struct { int64_t value; int round; } Kept;

/* The samples that were not preempted; the CPU times of all where most were. Rounds are numbered without gaps. */
static long keep(const Timed *model, int with_cpu_time, Kept *kept, int *rounds) {
  long clean = 0, count = 0;
  for (long i = 0; i < model->runs; i++)
    clean += undisturbed(model->wall_ns[i], model->cpu_ns[i]);
  int all = !with_cpu_time || clean * 2 < model->runs, last = -1;
  *rounds = 0;
  for (long i = 0; i < model->runs; i++) {
    if (!all && !undisturbed(model->wall_ns[i], model->cpu_ns[i])) continue;
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
  double low = quantile(medians, RESAMPLES, 0.025), high = quantile(medians, RESAMPLES, 0.975);
  free(kept), free(draws), free(sizes);
  return ((high > middle ? high : middle) - (low < middle ? low : middle)) / 2 / (middle > 0 ? middle : 1);
}

int64_t round_median(const Timed *model, long round, int with_cpu_time) {
  int64_t clean[64], every[64];
  long count = 0, all = 0, begin = round * model->block;
  for (long i = begin; i < begin + model->block && i < model->runs && all < 64; i++) {
    every[all++] = model->wall_ns[i];
    if (!with_cpu_time || undisturbed(model->wall_ns[i], model->cpu_ns[i])) clean[count++] = model->wall_ns[i];
  }
  if (!all) return 0;
  qsort(clean, (size_t)count, sizeof *clean, by_value);
  qsort(every, (size_t)all, sizeof *every, by_value);
  return (int64_t)(count ? quantile(clean, count, 0.5) : quantile(every, all, 0.5));
}

static const char *reason_to_stop(Timed *model, const Job *job) {
  if (model->is_anchor) return NULL;
  if (model->spent_ms >= job->max_ms) return "max_ms";
  if (model->runs >= job->max_samples) return "max_samples";
  if (model->rounds < model->next_check || model->runs < job->min_samples || model->spent_ms < job->min_ms) return NULL;
  /* The interval costs milliseconds: looked at after every 20 % more rounds, not after each. */
  model->next_check = model->rounds + (model->rounds / 5 > 0 ? model->rounds / 5 : 1);
  return half_width(model, job->has_cpu_time) <= job->half_width * MARGIN ? "converged" : NULL;
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
  for (long i = 0; i < model->block; i++) {
    model->round_of[model->runs + i] = (int)model->rounds;
    model->spent_ms += (double)model->wall_ns[model->runs + i] / 1e6;
  }
  model->runs += model->block;
  model->rounds++;
  model->stopped = reason_to_stop(model, job);
  return 0;
}

/* How much of its reference time the anchor took in the last round: the lower of two, for what slows the device slows both. */
static double slowness(const Timed *models, const Job *job) {
  double lowest = 0;
  for (long i = 0; i < job->anchors; i++) {
    if (!models[i].rounds) continue;
    int64_t took = round_median(&models[i], models[i].rounds - 1, job->has_cpu_time);
    double share = job->reference_ns[i] > 0 && took > 0 ? (double)took / (double)job->reference_ns[i] : 0;
    if (share > 0 && (lowest == 0 || share < lowest)) lowest = share;
  }
  return lowest;
}

/* Takes back all rounds from one on: those in which the device was slow. */
static void take_back(Timed *models, int count, Course *course, long rounds) {
  for (int i = 0; i < count; i++) {
    Timed *model = &models[i];
    while (model->rounds > rounds) {
      model->rounds--;
      for (long k = 0; k < model->block; k++) model->spent_ms -= (double)model->wall_ns[--model->runs] / 1e6;
      model->stopped = NULL;
    }
  }
  course->rounds = rounds;
}

static Verdict judge(Timed *models, int count, const Job *job, Course *course) {
  Verdict verdict = judge_round(course, slowness(models, job));
  if (verdict == GO_ON) return GO_ON;
  take_back(models, count, course, course->rounds > IN_A_ROW ? course->rounds - IN_A_ROW : 0);
  for (int i = 0; i < count && verdict == END; i++)
    if (!models[i].stopped) models[i].stopped = "throttled";
  return verdict;
}

/* Each model's anchor is the one nearest in latency; one that is nearest to none is not timed. */
static void choose_anchors(Timed *models, int count, const Job *job) {
  int used[MAX_ANCHORS] = {0};
  for (int i = 0; i < count; i++) {
    double nearest = 0;
    models[i].anchor = -1;
    for (int k = 0; k < job->anchors && i >= job->anchors; k++) {
      double ratio = models[i].latest_ns / models[k].latest_ns, distance = ratio > 1 ? ratio : 1 / ratio;
      if (nearest == 0 || distance < nearest) nearest = distance, models[i].anchor = k;
    }
    if (models[i].anchor >= 0) used[models[i].anchor] = 1;
  }
  for (int k = 0; k < job->anchors; k++)
    if (!used[k]) models[k].stopped = "unused";
}

int time_rounds(Timed *models, int count, const Job *job, Course *course) {
  choose_anchors(models, count, job);
  for (int first = 0;; first = (first + 1) % count) {
    int waiting[1024], n = 0, open = 0; /* those of this round are fixed before it begins */
    for (int i = 0; i < count; i++) {
      int index = (first + i) % count;
      if (models[index].stopped) continue;
      waiting[n++] = index;
      open += !models[index].is_anchor;
    }
    if (!open) return 0;
    require_host(job);
    for (int i = 0; i < n; i++)
      if (add_block(&models[waiting[i]], job, n > 1)) return 1;
    note_round(course);
    if (judge(models, count, job, course) == END) return 0;
  }
}
