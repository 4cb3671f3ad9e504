/* See damselfly.h. */

#include <limits.h>
#include <string.h>

#define LUA_CORE

#include "lua.h"

#include "lapi.h"
#include "ldebug.h"
#include "ldo.h"
#include "lfunc.h"
#include "lgc.h"
#include "lstate.h"
#include "lstring.h"
#include "ltable.h"
#include "lundump.h"

void df_init(df_State *state) {
    state->tick = NULL;
    state->work = DF_BUDGET;
    state->aborting = 0;
    state->gc_limit = MAX_LUMEM;
    state->gc_full = 0;
}

void df_open(lua_State *L) {
    /* The message of LUA_ERRERR, made in advance: raising it must not need memory. */
    luaS_fix(luaS_newliteral(L, "error in error handling"));
}

/* The budget of work. */

void df_used_up(lua_State *L) {
    df_State *state = &G(L)->df;
    int answer;
    state->work = DF_BUDGET;
    answer = state->tick != NULL ? state->tick(L) : DF_GO_ON;
    if (answer == DF_LATER) state->work = 0;
    else if (answer == DF_ABORT) df_abort(L);
}

LUA_API int df_is_due(lua_State *L) {
    return G(L)->df.work <= 0;
}

LUA_API void df_settle(lua_State *L) {
    G(L)->df.work = DF_BUDGET;
}

LUA_API void df_work(lua_State *L, size_t units) {
    DF_WORK(L, units);
}

LUA_API void df_set_tick(lua_State *L, df_Tick tick) {
    G(L)->df.tick = tick;
    G(L)->df.work = DF_BUDGET;
}

void df_comparing(lua_State *L, const TString *a, const TString *b) {
    size_t shorter = a->tsv.len < b->tsv.len ? a->tsv.len : b->tsv.len;
    DF_WORK(L, shorter >> 6);
}

/* Aborts. */

LUA_API void df_room(lua_State *L, int size) {
    luaD_checkstack(L, size);
    if (L->ci->top < L->top + size) L->ci->top = L->top + size;
}

LUA_API void df_abort(lua_State *L) {
    G(L)->df.aborting = 1;
    /* Of the statuses this is the one whose message needs no place on the stack and no memory. */
    luaD_throw(L, LUA_ERRERR);
}

LUA_API int df_is_aborting(lua_State *L) {
    return G(L)->df.aborting;
}

LUA_API void df_set_aborting(lua_State *L, int aborting) {
    G(L)->df.aborting = aborting;
}

void df_pass_abort(lua_State *L) {
    if (G(L)->df.aborting) df_abort(L);
}

void df_error_text(lua_State *L) {
    if (lua_type(L, -1) != LUA_TTABLE) return;
    lua_pushliteral(L, "err");
    lua_rawget(L, -2);
    if (lua_isstring(L, -1)) lua_replace(L, -2);
    else lua_pop(L, 1);
}

/* Tables that cannot be written. */

static Table *table_at(lua_State *L, int index) {
    Table *table;
    lua_pushvalue(L, index);
    table = hvalue(L->top - 1);
    lua_pop(L, 1);
    return table;
}

LUA_API void df_set_readonly(lua_State *L, int index, int readonly) {
    table_at(L, index)->readonly = cast_byte(readonly);
}

void df_readonly_error(lua_State *L) {
    luaG_runerror(L, "Attempt to modify a readonly table");
}

/* Lists that are filled again. */

LUA_API int df_is_list(lua_State *L, int index, int len) {
    const Table *table = table_at(L, index);
    /* A table without fields has one node, which is empty, and which it shares with others like it. */
    return table->sizearray == len && table->lsizenode == 0 && ttisnil(gval(gnode(table, 0)))
        && table->metatable == NULL && !table->readonly;
}

LUA_API void df_set_text(lua_State *L, int index, int n, const char *text, size_t len) {
    Table *table;
    TString *string;
    luaC_checkGC(L);
    string = luaS_newlstr(L, text, len);
    table = table_at(L, index);
    setsvalue2n(L, &table->array[n - 1], string);
    luaC_objbarriert(L, table, obj2gco(string));
}

/* Collections. */

LUA_API void df_set_gc_limit(lua_State *L, size_t limit) {
    G(L)->df.gc_limit = limit;
    G(L)->df.gc_full = 0;
}

LUA_API void df_reset_gc(lua_State *L) {
    global_State *g = G(L);
    g->gcpause = LUAI_GCPAUSE;
    g->gcstepmul = LUAI_GCMUL;
    /* Stopped. */
    if (g->GCthreshold == MAX_LUMEM) g->GCthreshold = g->totalbytes;
}

/* What a cycle waits for at least: each goes through all libraries and scripts, which most calls do not add to. */
#define GARBAGE_LEAST ((lu_mem)256 << 10)

/* Near the limit of memory the pause between cycles gets shorter, so that garbage does not count as data. */
void df_set_threshold(global_State *g) {
    size_t limit = g->df.gc_limit;
    g->GCthreshold = g->estimate / 100 * g->gcpause;
    if (g->GCthreshold < g->estimate + GARBAGE_LEAST) g->GCthreshold = g->estimate + GARBAGE_LEAST;
    if (g->GCthreshold > limit) {
        g->GCthreshold = g->estimate + limit / 32;
        if (g->GCthreshold < limit) g->GCthreshold = limit;
    }
}

/* Beyond the limit, steps may come too late: everything is collected at once, now and then. */
int df_collect_all(lua_State *L) {
    global_State *g = G(L);
    df_State *state = &g->df;
    if (g->totalbytes <= state->gc_limit || g->totalbytes <= state->gc_full) return 0;
    luaC_fullgc(L);
    state->gc_full = g->totalbytes + state->gc_limit / 16;
    DF_WORK(L, g->totalbytes >> 6);
    return 1;
}

LUA_API void df_close(lua_State *L) {
    /* lua_close frees in the order of creation, and coroutines that it frees look at values that may be gone
    ** already (CVE-2024-46981). So nothing is left to it: all is forgotten, and then collected. */
    int type;
    lua_settop(L, 0);
    luaF_close(L, L->stack);
    setnilvalue(gt(L));
    setnilvalue(registry(L));
    for (type = 0; type < NUM_TAGS; type++) G(L)->mt[type] = NULL;
    luaC_fullgc(L);
    lua_close(L);
}

/* Strings, numbers and the parser. */

/* Lua's own hash leaves out bytes of strings of 32 and more, so that strings which differ in those only were all
** in one chain of the table of strings. The order of tables depends on that hash, so it stays; chains use this. */
unsigned df_hash(const char *text, size_t len) {
    unsigned long long hash = len, word;
    for (; len >= 8; len -= 8, text += 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, text, len);
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    return (unsigned)(hash >> 32);
}

int df_count(int first, int last) {
    long long count = (long long)last - first + 1;
    return count <= INT_MAX ? (int)count : 0;
}

TString *df_push(lua_State *L, TString *text) {
    setsvalue2s(L, L->top, text);
    incr_top(L);
    return text;
}

/* The head of what string.dump makes; lundump.c, where it comes from, loads bytecode and is not compiled. */
void luaU_header(char *head) {
    const unsigned short one = 1;
    const char bytes[LUAC_HEADERSIZE] = {
        LUA_SIGNATURE[0], LUA_SIGNATURE[1], LUA_SIGNATURE[2], LUA_SIGNATURE[3], LUAC_VERSION, LUAC_FORMAT,
        *(const char *)&one, sizeof(int), sizeof(size_t), sizeof(Instruction), sizeof(lua_Number),
        /* Numbers are not integers. */
        0,
    };
    memcpy(head, bytes, sizeof bytes);
}
