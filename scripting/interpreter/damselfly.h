/*
** What the interpreter has beyond Lua 5.1: a budget of work, aborts that nothing catches, tables that cannot
** be written, collections that respect a limit of memory. `edits.rs` says where the sources of Lua use it.
*/

#ifndef damselfly_h
#define damselfly_h

#include <stddef.h>

/* Units of work between ticks; a unit is about 5 ns. */
#define DF_BUDGET 10000

/* Matches of patterns that may be nested on the C stack; each takes about 150 bytes of it. */
#define DF_MATCH_DEPTH 500

/* Longer strings are no numbers: converting them takes long, in places where work cannot be accounted for. */
#define DF_NUMBER_MAX 4096

/* Signs of equality in a long bracket; beyond that its length overflowed an int (CVE-2025-46819). */
#define DF_BRACKET_MAX 1000000

/* Called when the budget is used up: whether the script goes on, is aborted, or is in the middle of something and
** has to be asked again at its next work. */
typedef int (*df_Tick)(lua_State *L);
#define DF_GO_ON 0
#define DF_ABORT 1
#define DF_LATER 2

/* Part of the state that all coroutines share. */
typedef struct df_State {
    df_Tick tick;
    /* Units until the next tick. */
    ptrdiff_t work;
    /* An abort is on its way; no error can be caught. */
    int aborting;
    /* With more bytes in use than this, collections follow each other sooner. */
    size_t gc_limit;
    /* Bytes in use at which the next full collection is due. */
    size_t gc_full;
} df_State;

/* Accounts for `units` of work. Wherever scripts choose the length of a loop in C, it says so here. */
LUA_API void df_work(lua_State *L, size_t units);
/* The same without a call, for the core, where `lstate.h` is known. */
#define DF_WORK(L, units) do { if ((G(L)->df.work -= (ptrdiff_t)(units)) < 0) df_used_up(L); } while (0)
LUAI_FUNC void df_used_up(lua_State *L);
/* For functions of the host, which the tick does not interrupt: is it due? And that it has been made up for. */
LUA_API int df_is_due(lua_State *L);
LUA_API void df_settle(lua_State *L);

/* For the host. */
LUA_API void df_set_tick(lua_State *L, df_Tick tick);
LUA_API void df_set_readonly(lua_State *L, int index, int readonly);
LUA_API void df_set_gc_limit(lua_State *L, size_t limit);
/* Takes back what scripts do with `collectgarbage`, without starting a cycle. */
LUA_API void df_reset_gc(lua_State *L);
/* Room for `size` more values. lua_checkstack refuses it to a function that was called with 8000 arguments, as by
** redis.call(unpack(t)). */
LUA_API void df_room(lua_State *L, int size);
/* Whether the table at `index` is a list of `len` places and nothing else, as lua_createtable has made it: whatever is
** in the places, it has no other fields and no metatable. */
LUA_API int df_is_list(lua_State *L, int index, int len);
/* Place `n` of such a table becomes a string. */
LUA_API void df_set_text(lua_State *L, int index, int n, const char *text, size_t len);
/* An error that passes pcall, xpcall, coroutines and error handlers. */
LUA_API void df_abort(lua_State *L);
LUA_API int df_is_aborting(lua_State *L);
LUA_API void df_set_aborting(lua_State *L, int aborting);
/* Instead of lua_close. */
LUA_API void df_close(lua_State *L);

/* For Lua's libraries. */
/* To be called with what a protected call has caught: an abort goes on. */
LUAI_FUNC void df_pass_abort(lua_State *L);
/* Of an error table, as `redis.call` raises, the text takes its place on the stack. */
LUAI_FUNC void df_error_text(lua_State *L);
/* Numbers from `first` to `last`, or 0 if these are more than an int can count. */
LUAI_FUNC int df_count(int first, int last);

/* For Lua's core. */
struct global_State;
union TString;
LUAI_FUNC void df_init(df_State *state);
LUAI_FUNC void df_open(lua_State *L);
LUAI_FUNC void df_readonly_error(lua_State *L);
LUAI_FUNC void df_comparing(lua_State *L, const union TString *a, const union TString *b);
LUAI_FUNC unsigned df_hash(const char *text, size_t len);
LUAI_FUNC union TString *df_push(lua_State *L, union TString *text);
LUAI_FUNC void df_set_threshold(struct global_State *g);
LUAI_FUNC int df_collect_all(lua_State *L);

#endif
