-- B-tree: insertion and splits at every level, deduplication, deletion of items and of pages.
set enable_seqscan = off;

-- INSERT_LEAF, INSERT_UPPER, SPLIT_L, SPLIT_R, NEWROOT; wide keys make a tree of three levels out of few rows
create table wide (id int, key text) with (fillfactor = 100, autovacuum_enabled = off);
create index wide_key on wide (key) with (deduplicate_items = off);
alter table wide alter key set storage plain;
insert into wide select g, lpad(g::text, 8, '0') || repeat('k', 1200) from generate_series(1, 400) g;
insert into wide select g, lpad((400 - g)::text, 8, '0') || repeat('a', 1200) from generate_series(1, 400) g;
insert into wide select g, md5(g::text) || repeat('r', 1200) from generate_series(1, 400) g;

-- many rows, in order, in reverse and at random, unique and not
create table narrow (id int primary key, rev int, rnd int, dup int) with (fillfactor = 60, autovacuum_enabled = off);
create index narrow_rev on narrow (rev);
create index narrow_rnd on narrow (rnd);
create index narrow_dup on narrow (dup);
insert into narrow select g, -g, (hashint4(g) % 100000), g % 7 from generate_series(1, 4000) g;

-- DEDUP and INSERT_POST: equal keys whose rows come in another order than their places on the heap
create table dups (k int, n int) with (fillfactor = 30, autovacuum_enabled = off);
create index dups_k on dups (k);
insert into dups select g % 5, 0 from generate_series(1, 3000) g;
delete from dups where n = 0 and ctid < '(15,0)'::tid and k = 2;
vacuum dups;
insert into dups select 2, 1 from generate_series(1, 2000) g;

-- DELETE: items known dead are removed before a page would split (a scan marks them first), and bottom-up deletion
create table killed (k int, filler int) with (fillfactor = 100, autovacuum_enabled = off);
create index killed_k on killed (k) with (deduplicate_items = off);
insert into killed select g, 0 from generate_series(1, 400) g;
delete from killed where k < 200;
select count(*) from killed where k between 1 and 200;
select count(*) from killed where k between 1 and 200;
insert into killed select g, 1 from generate_series(1, 400) g;
create table churned (id int primary key, hot int, cold int) with (fillfactor = 50, autovacuum_enabled = off);
create index churned_hot on churned (hot);
create index churned_cold on churned (cold);
insert into churned select g, g, g % 3 from generate_series(1, 200) g;
do $$ begin for i in 1..40 loop update churned set hot = hot + 1; end loop; end $$;
do $$ begin for i in 1..20 loop update churned set hot = hot + 1 where id % 5 = 0; commit; end loop; end $$;

-- VACUUM of items, with part of a posting list gone, and of whole pages: MARK_PAGE_HALFDEAD, UNLINK_PAGE
delete from dups where n = 1 and ctid::text like '%5)';
vacuum dups;
delete from narrow where id % 2 = 0;
vacuum narrow;
delete from narrow where id between 500 and 3500;
vacuum narrow;
vacuum narrow;

-- UNLINK_PAGE of inner pages, and UNLINK_PAGE_META: all but the ends of a tree of three levels goes, so the fast root moves down
delete from wide where key > '00000001z' and key < '00000200';
vacuum wide;
delete from wide;
vacuum wide;
vacuum wide;
insert into wide select g, lpad(g::text, 8, '0') || repeat('k', 1200) from generate_series(1, 300) g;

-- INSERT_META: the fast root, alone on its level after deletions, splits and its parent takes over
delete from wide where key < '00000298';
vacuum wide;
insert into wide select g, lpad(g::text, 8, '0') || repeat('k', 1200) from generate_series(300, 700) g;

-- META_CLEANUP: deleted pages are counted for the next vacuum
create table cleaned (id int) with (autovacuum_enabled = off);
create index cleaned_id on cleaned (id);
insert into cleaned select generate_series(1, 20000);
delete from cleaned where id < 19000;
vacuum cleaned;
select pg_current_xact_id();
vacuum (index_cleanup on) cleaned;

-- a unique index with conflicts, an index with included columns, one with nulls, one built anew while in use
create table uniq (k int unique, n int);
insert into uniq select g, g from generate_series(1, 300) g;
update uniq set k = k + 1000;
create index uniq_inc on uniq (k) include (n);
insert into uniq select g, g from generate_series(1, 300) g;
create table nulls (k int);
create index nulls_k on nulls (k);
insert into nulls select case when g % 2 = 0 then g end from generate_series(1, 2000) g;
reindex index nulls_k;
reindex index concurrently nulls_k;
