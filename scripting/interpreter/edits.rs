//! The changes to the sources of Lua 5.1.5, each with its reason. What they call is in `damselfly.h`.
//!
//! A place is named by a few words that occur once in their file; `build.rs` refuses everything else.

/// What is done at a place.
pub enum Change {
    Before(&'static str),
    After(&'static str),
    Instead(&'static str),
    /// Nothing: the sources must have it.
    Present,
}

pub struct Edit {
    pub file: &'static str,
    pub place: &'static str,
    pub change: Change,
}

const fn edit(file: &'static str, place: &'static str, change: Change) -> Edit {
    Edit { file, place, change }
}

use Change::{After, Before, Instead, Present};

/// Reasons, and what is changed for them.
pub const EDITS: &[(&str, &[Edit])] = &[
    (
        "Everything below is declared where all of Lua sees it, and has its place in the state.",
        &[
            edit("lua.h", "LUA_API int   (lua_setfenv)", Before("#include \"damselfly.h\"\n")),
            edit("lstate.h", "struct lua_State *mainthread;", After(" df_State df;")),
            edit("lstate.c", "g->panic = NULL;", After(" df_init(&g->df);")),
            edit("lstate.c", "luaS_fix(luaS_newliteral(L, MEMERRMSG));", After(" df_open(L);")),
        ],
    ),
    (
        "CVE-2014-5461: a vararg function's fixed parameters were moved beyond the stack. The crate's sources \
         have the known correction; the old form of vararg functions needs it as well.",
        &[
            edit("ldo.c", "luaD_checkstack(L, p->maxstacksize + p->numparams);", Present),
            edit(
                "ldo.c",
                "luaD_checkstack(L, p->maxstacksize);",
                Instead("luaD_checkstack(L, p->maxstacksize + p->numparams);"),
            ),
        ],
    ),
    (
        "Bytecode is not loaded: it is trusted blindly. lundump.c, which would load it, is not compiled.",
        &[edit(
            "ldo.c",
            "tf = ((c == LUA_SIGNATURE[0]) ? luaU_undump : luaY_parser)(",
            Instead("(void)c; tf = luaY_parser("),
        )],
    ),
    (
        "CVE-2025-49844: the chunk's name could be collected while the chunk is parsed.",
        &[
            edit("lparser.c", "luaS_new(L, name)", Instead("df_push(L, luaS_new(L, name))")),
            edit("lparser.c", "lua_assert(lexstate.fs == NULL);", After(" L->top--;")),
        ],
    ),
    (
        "CVE-2025-46817: the number of results of unpack overflowed.",
        &[edit("lbaselib.c", "n = e - i + 1;", Instead("n = df_count(i, e);"))],
    ),
    (
        "CVE-2025-46819: the length of a long bracket overflowed.",
        &[edit(
            "llex.c",
            "    count++;\n",
            After("    if (count > DF_BRACKET_MAX) luaX_lexerror(ls, \"bracket too long\", 0);\n"),
        )],
    ),
    (
        "Tables can be read-only: globals, libraries and metatables are shared by all scripts.",
        &[
            edit("lobject.h", "lu_byte lsizenode;", Before("lu_byte readonly; ")),
            edit("ltable.c", "t->lsizenode = 0;", After(" t->readonly = 0;")),
            edit(
                "lapi.c",
                "setobj2t(L, luaH_set(L, hvalue(t)",
                Before("if (hvalue(t)->readonly) df_readonly_error(L); "),
            ),
            edit(
                "lapi.c",
                "setobj2t(L, luaH_setnum(L, hvalue(o)",
                Before("if (hvalue(o)->readonly) df_readonly_error(L); "),
            ),
            edit(
                "lapi.c",
                "hvalue(obj)->metatable = mt;",
                Before("if (hvalue(obj)->readonly) df_readonly_error(L); "),
            ),
            edit("lvm.c", "TValue *oldval = luaH_set(", Before("if (h->readonly) df_readonly_error(L); ")),
        ],
    ),
    (
        "An abort (SCRIPT KILL, a command that has to be run again) passes everything that catches errors.",
        &[
            edit(
                "ldebug.c",
                "if (L->errfunc != 0) {",
                Instead("if (L->errfunc != 0 && !G(L)->df.aborting) {"),
            ),
            edit("lbaselib.c", "load_aux (lua_State *L, int status) {", After(" df_pass_abort(L);")),
            edit("lbaselib.c", "status = lua_pcall(L, 0, LUA_MULTRET, 1);", After(" df_pass_abort(L);")),
            edit("lbaselib.c", "status = lua_resume(co, narg);", After(" df_pass_abort(L);")),
        ],
    ),
    (
        "The same in pcall, which gives the text of an error table, as Redis does.",
        &[edit(
            "lbaselib.c",
            "status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);",
            After(" df_pass_abort(L); if (status != 0) df_error_text(L);"),
        )],
    ),
    (
        "Work of the interpreter: calls with their arguments, backward jumps, and the code that may run until the next.",
        &[
            edit("ldo.c", "if (!ttisfunction(func)) /*", Before("DF_WORK(L, 1 + ((L->top - func) >> 4)); ")),
            edit("ldo.c", "Proto *p = cl->p;", After(" DF_WORK(L, p->sizecode >> 6);")),
            edit(
                "lvm.c",
                "{(pc) += (i); luai_threadyield(L);}",
                Instead(
                    "{ int by = (i); if (by < 0) { L->savedpc = pc; DF_WORK(L, 1 + (-by >> 6)); } (pc) += by; }",
                ),
            ),
        ],
    ),
    (
        "Work of the compiler: tokens, and the lists that it walks through again and again (jumps out of a \
         loop, variables in reach), which take time that is quadratic in the length of the text.",
        &[
            edit("llex.c", "ls->lastline = ls->linenumber;", After(" DF_WORK(ls->L, 4);")),
            edit("llex.c", "static void inclinenumber (LexState *ls) {", After(" DF_WORK(ls->L, 1);")),
            edit("lcode.c", "int offset = GETARG_sBx(fs->f->code[pc]);", After(" DF_WORK(fs->L, 1);")),
            edit("lparser.c", "for (i=fs->nactvar-1;", Before("DF_WORK(fs->L, 1 + (fs->nactvar >> 2)); ")),
        ],
    ),
    (
        "Work with strings: whoever makes a long one has touched its bytes; comparing reads them; naming a \
         variable in an error's message goes through the code before it.",
        &[
            edit(
                "lstring.c",
                "if (l+1 > (MAX_SIZET - sizeof(TString))",
                Before("if (l >= 1024) DF_WORK(L, l >> 6); "),
            ),
            edit(
                "lvm.c",
                "l_strcmp(rawtsvalue(l), rawtsvalue(r)) < 0",
                Before("df_comparing(L, rawtsvalue(l), rawtsvalue(r)), "),
            ),
            edit(
                "lvm.c",
                "l_strcmp(rawtsvalue(l), rawtsvalue(r)) <= 0",
                Before("df_comparing(L, rawtsvalue(l), rawtsvalue(r)), "),
            ),
            edit("ldebug.c", "i = symbexec(p, pc, stackpos);", Before("DF_WORK(L, pc >> 2); ")),
        ],
    ),
    (
        "Strings as numbers have a bound, and those in other bases are accounted for.",
        &[
            edit("lvm.c", "luaO_str2d(svalue(obj), &num)", Before("tsvalue(obj)->len <= DF_NUMBER_MAX && ")),
            edit("lbaselib.c", "n = strtoul(s1, &s2, base);", Before("df_work(L, lua_objlen(L, 1) >> 3); ")),
        ],
    ),
    (
        "Work with tables: empty slots that `next` passes, tables that are made anew.",
        &[
            edit("ltable.c", "int i = findindex(L, t, key);", After(" int first = i;")),
            edit("ltable.c", "setnvalue(key, cast_num(i+1));", Before("DF_WORK(L, (i - first) >> 3); ")),
            edit(
                "ltable.c",
                "setobj2s(L, key, key2tval(gnode(t, i)));",
                Before("DF_WORK(L, (i + t->sizearray - first) >> 3); "),
            ),
            edit(
                "ltable.c",
                "return 0;  /* no more elements */",
                Before("DF_WORK(L, (i + t->sizearray - first) >> 3); "),
            ),
            edit(
                "ltable.c",
                "static void rehash (lua_State *L, Table *t, const TValue *ek) {",
                After(" DF_WORK(L, (t->sizearray + sizenode(t)) >> 1);"),
            ),
        ],
    ),
    (
        "The length of a table was counted one by one if its keys were chosen for that; halving does.",
        &[edit("ltable.c", "      i = 1;\n", Before("      j = MAX_INT; break;\n"))],
    ),
    (
        "Work of the table library.",
        &[
            edit("ltablib.c", "lua_rawgeti(L, 1, i-1);", Before("df_work(L, 1); ")),
            edit("ltablib.c", "lua_rawgeti(L, 1, pos+1);", Before("df_work(L, 1); ")),
            edit("ltablib.c", "luaL_Buffer *b, int i) {", After(" df_work(L, 1);")),
            edit(
                "ltablib.c",
                "static int sort_comp (lua_State *L, int a, int b) {",
                After(" df_work(L, 1);"),
            ),
            edit("ltablib.c", "lua_pop(L, 1);  /* remove value */", After(" df_work(L, 1);")),
        ],
    ),
    (
        "Work of collectgarbage: the whole heap, at most.",
        &[edit(
            "lbaselib.c",
            "int res = lua_gc(L, optsnum[o], ex);",
            Before("df_work(L, (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 16 + 1); "),
        )],
    ),
    (
        "Work of string.rep; of nothing it is nothing.",
        &[
            edit("lstrlib.c", "int n = luaL_checkint(L, 2);", After(" if (l == 0) n = 0;")),
            edit(
                "lstrlib.c",
                "while (n-- > 0)",
                After(" if (df_work(L, 1 + (l >> 6)), l == 1) luaL_addchar(&b, *s); else"),
            ),
        ],
    ),
    (
        "Work of string.find without a pattern, and of the search for special characters.",
        &[
            edit("lstrlib.c", "static const char *lmemfind (", After("lua_State *L, ")),
            edit("lstrlib.c", "lmemfind(s+init", Instead("lmemfind(L, s+init")),
            edit(
                "lstrlib.c",
                "init++;   /* 1st char",
                Before("df_work(L, 1 + (l2 >> 6) + ((init - s1) >> 7)); "),
            ),
            edit("lstrlib.c", "return NULL;  /* not found */", Before("df_work(L, l1 >> 7); ")),
            edit(
                "lstrlib.c",
                "ptrdiff_t init = posrelat(luaL_optinteger(L, 3, 1), l1) - 1;",
                Before("df_work(L, l2 >> 4); "),
            ),
        ],
    ),
    (
        "Work of patterns, which can be more than exponential: each step, and what a step reads.",
        &[
            edit("lstrlib.c", "to optimize tail recursion */", After(" df_work(ms->L, 1);")),
            edit("lstrlib.c", "while (++s < ms->src_end) {", After(" df_work(ms->L, 1);")),
            edit(
                "lstrlib.c",
                "singlematch(uchar(*(s+i)), p, ep))",
                After(" if (df_work(ms->L, (ep - p + 7) >> 3), 1)"),
            ),
            edit(
                "lstrlib.c",
                "s++;  /* try with one more repetition */",
                Instead("{ s++; df_work(ms->L, (ep - p) >> 3); }"),
            ),
            edit("lstrlib.c", "do {  /* look for a `]' */", Before("const char *set = p; ")),
            edit("lstrlib.c", "while (*p != ']');", After(" df_work(ms->L, (p - set) >> 2);")),
            edit("lstrlib.c", "len = ms->capture[l].len;\n", After("  df_work(ms->L, len >> 6);\n")),
        ],
    ),
    (
        "Patterns recurse on the C stack of a thread: their depth is bounded, as in later Lua.",
        &[
            edit("lstrlib.c", "int level;  /* total", Before("int depth; ")),
            edit("lstrlib.c", "ms.src_end = s+l1;", After(" ms.depth = DF_MATCH_DEPTH;")),
            edit("lstrlib.c", "ms.src_end = s+ls;", After(" ms.depth = DF_MATCH_DEPTH;")),
            edit("lstrlib.c", "ms.src_end = src+srcl;", After(" ms.depth = DF_MATCH_DEPTH;")),
            edit(
                "lstrlib.c",
                "static const char *match (MatchState *ms, const char *s, const char *p) {",
                Instead(
                    "static const char *match_at (MatchState *ms, const char *s, const char *p);
static const char *match (MatchState *ms, const char *s, const char *p) {
  const char *end;
  if (ms->depth-- == 0) luaL_error(ms->L, \"pattern too complex\");
  end = match_at(ms, s, p);
  ms->depth++;
  return end;
}
static const char *match_at (MatchState *ms, const char *s, const char *p) {",
                ),
            ),
        ],
    ),
    (
        "Nested gsubs have a buffer each, on the C stack of a thread.",
        &[edit("luaconf.h", "#define LUAL_BUFFERSIZE\t\tBUFSIZ", Instead("#define LUAL_BUFFERSIZE 1024"))],
    ),
    (
        "Garbage near the limit of memory.",
        &[
            edit(
                "lgc.c",
                "(g->GCthreshold = (g->estimate/100) * g->gcpause)",
                Instead("df_set_threshold(g)"),
            ),
            edit("lgc.c", "void luaC_step (lua_State *L) {", After(" if (df_collect_all(L)) return;")),
        ],
    ),
    (
        "The table of strings uses a hash of all their bytes.",
        &[
            edit("lobject.h", "unsigned int hash;", After(" unsigned int chain;")),
            edit("lstring.c", "gco2ts(p)->hash", Instead("gco2ts(p)->chain")),
            edit("lstring.c", "unsigned int h) {", Instead("unsigned int h, unsigned int chain) {")),
            edit("lstring.c", "ts->tsv.hash = h;", After(" ts->tsv.chain = chain;")),
            edit("lstring.c", "h = lmod(h, tb->size);", Instead("h = lmod(chain, tb->size);")),
            edit(
                "lstring.c",
                "for (o = G(L)->strt.hash[lmod(h,",
                Instead(
                    "unsigned int chain = l < 32 ? h : df_hash(str, l); for (o = G(L)->strt.hash[lmod(chain,",
                ),
            ),
            edit(
                "lstring.c",
                "if (ts->tsv.len == l &&",
                Instead("if (ts->tsv.chain == chain && ts->tsv.len == l &&"),
            ),
            edit(
                "lstring.c",
                "return newlstr(L, str, l, h);",
                Instead("return newlstr(L, str, l, h, chain);"),
            ),
        ],
    ),
];
