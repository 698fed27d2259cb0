-- GiST: PAGE_UPDATE, DELETE, PAGE_REUSE, PAGE_SPLIT, PAGE_DELETE. (ASSIGN_LSN, which has no block, wants wal_level = minimal.)
create table gist_t (id int, p point);
create index gist_p on gist_t using gist (p);
insert into gist_t select i, point(i % 97, i % 89) from generate_series(1, 6000) i;
-- Tuples of other lengths: text search vectors. Signatures so long that few fit on an inner page, so that inner pages split as well.
create table gist_ts (id int, v tsvector);
create index gist_ts_i on gist_ts using gist (v tsvector_ops (siglen = 1000));
insert into gist_ts select i, to_tsvector('simple', md5(i::text) || ' ' || md5((i * 7)::text) || repeat(' w' || i % 50, i % 20))
    from generate_series(1, 1500) i;
update gist_ts set v = to_tsvector('simple', 'replaced ' || id) where id % 4 = 0;
delete from gist_ts where id % 3 = 0;
vacuum gist_ts;
-- Whole leaf pages go, and later come back from the free space map.
delete from gist_t where id > 300;
vacuum gist_t;
select txid_current();
select txid_current();
vacuum gist_t;
insert into gist_t select i, point(i % 97, i % 89) from generate_series(1, 4000) i;
-- Entries that a scan has marked dead make room on a full page (not on the root, which scans never mark).
create table gist_k (id int, p point);
create index gist_k_i on gist_k using gist (p);
insert into gist_k select i, point(i % 100, i % 10) from generate_series(1, 900) i;
delete from gist_k where id % 3 <> 0;
set enable_seqscan = off;
set enable_bitmapscan = off;
select count(id) from gist_k where p <@ box '(0,0),(200,200)';
insert into gist_k select i, point(i % 100, i % 10) from generate_series(1, 900) i;
reset enable_seqscan;
reset enable_bitmapscan;
