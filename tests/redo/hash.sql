-- Hash: INIT_META_PAGE, INIT_BITMAP_PAGE, INSERT, ADD_OVFL_PAGE, SPLIT_ALLOCATE_PAGE, SPLIT_PAGE, SPLIT_COMPLETE, MOVE_PAGE_CONTENTS,
-- SQUEEZE_PAGE, DELETE, SPLIT_CLEANUP, UPDATE_META_PAGE, VACUUM_ONE_PAGE.
-- Splits, with overflow pages of few keys in between.
create table hash_t (k int, v int);
create index hash_i on hash_t using hash (k) with (fillfactor = 10);
insert into hash_t select i, i from generate_series(1, 1500) i;
insert into hash_t select i % 3, i from generate_series(1, 4000) i;
-- Chains with gaps all along, then nearly empty ones.
delete from hash_t where v % 2 = 0;
vacuum hash_t;
insert into hash_t select i % 5, i from generate_series(1, 3000) i;
delete from hash_t where v % 9 <> 0;
vacuum hash_t;
delete from hash_t;
vacuum hash_t;
insert into hash_t select 42, i from generate_series(1, 1000) i;
-- Entries of late pages fill an early overflow page, and are moved in several steps.
create table hash_m (k int, v int);
insert into hash_m select 1, i from generate_series(1, 3300) i;
create index hash_m_i on hash_m using hash (k);
delete from hash_m where v between 500 and 1150 or v between 1300 and 1500;
vacuum hash_m;
-- A full bucket page (407 entries), half an overflow page, two empty ones, and one whose entries move ahead of them.
create table hash_s (k int, v int);
insert into hash_s select 1, i from generate_series(1, 2035) i;
create index hash_s_i on hash_s using hash (k);
delete from hash_s where v between 600 and 1980;
vacuum hash_s;
-- Entries that a scan has marked dead: an insertion into a full page removes them, so does VACUUM.
create table hash_k (k int, v int);
create index hash_k_i on hash_k using hash (k);
insert into hash_k select 1, i from generate_series(1, 407) i;
set enable_seqscan = off;
set enable_bitmapscan = off;
delete from hash_k where v % 3 <> 0;
select count(v) from hash_k where k = 1;
insert into hash_k select 1, i from generate_series(1, 300) i;
delete from hash_k where v % 4 = 0;
select count(v) from hash_k where k = 1;
vacuum hash_k;
reset enable_seqscan;
reset enable_bitmapscan;
create unlogged table hash_u (k int);
create index on hash_u using hash (k);
