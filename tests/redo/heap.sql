-- Heap and Heap2: every operation, on tables without and with TOAST.
create table plain (id int, n int, filler text) with (fillfactor = 70, autovacuum_enabled = off);

-- INSERT, INSERT+INIT, MULTI_INSERT, MULTI_INSERT+INIT (COPY and INSERT ... SELECT into catalogs use multi-insert)
insert into plain select g, g, repeat('x', g % 50) from generate_series(1, 500) g;
\copy plain from program 'seq -f "%g	1	copied" 1000 1400'
insert into plain values (5000, 1, 'one');

-- UPDATE, UPDATE+INIT, HOT_UPDATE, with prefix and suffix in common and without
create index on plain (id);
update plain set n = n + 1 where id % 3 = 0;
update plain set filler = filler || 'suffix' where id % 5 = 0;
update plain set filler = 'prefix' || filler where id % 7 = 0;
update plain set id = id + 10000 where id % 11 = 0;
update plain set filler = repeat('y', 700) where id % 13 = 0;
update plain set id = id + 20000, filler = repeat('z', 1500) where id < 200;

-- DELETE, pruning on access (reading a page that is full of dead tuples), then vacuum in both passes, with and without freezing
delete from plain where id % 4 = 0;
select count(*) from plain;
update plain set n = n + 1 where id < 300;
select sum(n) from plain where id < 300;
update plain set n = n + 1 where id < 300;
vacuum plain;
delete from plain where id % 17 = 0;
vacuum (freeze) plain;

-- What was frozen or all-visible changes again: the visibility map's bits go
insert into plain values (6000, 1, 'after vacuum');
update plain set n = 0 where id between 300 and 400;
delete from plain where id between 400 and 420;
vacuum plain;
\copy plain from program 'seq -f "%g	1	copied again" 2000 2010'
vacuum (freeze) plain;
begin;
select * from plain where id between 420 and 430 for update;
commit;

-- COPY FREEZE sets all-visible at once
begin;
create table frozen (id int, filler text);
\copy frozen from program 'seq -f "%g	frozen" 1 2000' with (freeze)
commit;
vacuum frozen;
begin;
select * from frozen where id < 20 for share;
update frozen set filler = 'thawed' where id < 10;
commit;
vacuum (freeze) frozen;

-- LOCK and LOCK_UPDATED, multixacts: prepared transactions keep their locks while others come
create table locked (id int primary key, n int, k int) with (fillfactor = 50);
insert into locked select g, g, g from generate_series(1, 60) g;
vacuum (freeze) locked;
begin;
select * from locked where id <= 20 for key share;
prepare transaction 'key_share';
begin;
select * from locked where id <= 10 for share;
prepare transaction 'share';
begin;
update locked set n = n + 1 where id between 11 and 20;
prepare transaction 'update';
begin;
select * from locked where id between 11 and 20 for key share;
prepare transaction 'lock_updated';
begin;
update locked set n = n + 1 where id between 21 and 40;
savepoint s;
update locked set n = n + 1 where id between 30 and 40;
rollback to s;
select * from locked where id between 30 and 45 for update;
prepare transaction 'mixed';
begin;
select * from locked where id between 21 and 29 for key share;
commit;
commit prepared 'key_share';
rollback prepared 'share';
commit prepared 'update';
commit prepared 'lock_updated';
commit prepared 'mixed';
begin;
select * from locked for update;
commit;
vacuum (freeze) locked;
-- ... and with rows that vacuum had frozen before the lock came through an update chain
update locked set n = 0 where id <= 5;
vacuum (freeze) locked;
begin;
update locked set n = 1 where id <= 5;
prepare transaction 'update2';
begin;
select * from locked where id <= 5 for key share;
commit;
rollback prepared 'update2';
-- a multixact that vacuum has to freeze away while a member is gone
begin;
select * from locked where id <= 8 for key share;
prepare transaction 'a';
begin;
select * from locked where id <= 8 for key share;
prepare transaction 'b';
commit prepared 'a';
commit prepared 'b';
set vacuum_multixact_freeze_min_age = 0;
vacuum (freeze) locked;
reset vacuum_multixact_freeze_min_age;

-- CONFIRM, and DELETE that undoes a speculative insertion (the conflict arises in a trigger between check and insertion)
create table speculative (id int primary key, n int);
insert into speculative select g, g from generate_series(1, 50) g on conflict do nothing;
insert into speculative select g, 0 from generate_series(30, 80) g on conflict (id) do update set n = speculative.n + 1;

-- DELETE that moves a row to another partition
create table parts (id int, n int) partition by list (n);
create table parts_1 partition of parts for values in (1);
create table parts_2 partition of parts for values in (2);
insert into parts select g, 1 from generate_series(1, 100) g;
update parts set n = 2 where id % 2 = 0;

-- INPLACE (vacuum and create index write pg_class so), subtransactions, TOAST, large objects
analyze plain;
create table toasted (id int, doc text);
alter table toasted alter doc set storage external;
insert into toasted select g, repeat(md5(g::text), 400) from generate_series(1, 20) g;
update toasted set doc = doc || 'x' where id % 2 = 0;
delete from toasted where id % 3 = 0;
vacuum toasted;
select lo_from_bytea(0, decode(repeat('ab', 30000), 'hex'));
begin;
insert into plain values (7000, 1, 'outer');
savepoint one;
insert into plain values (7001, 1, 'inner');
rollback to one;
insert into plain values (7002, 1, 'inner');
commit;

-- Tables rewritten and truncated: full-page images, and pages that come again
vacuum full plain;
cluster plain using plain_id_idx;
delete from plain where id > 1000;
vacuum plain;
truncate toasted;
insert into toasted values (1, 'again');

-- Materialised views, and a catalog busy enough to be pruned
create materialized view summary as select id % 10 as bucket, count(*) from plain group by 1;
refresh materialized view summary;
do $$ begin for i in 1..60 loop execute format('create table churn_%s (a int, b text)', i); execute format('drop table churn_%s', i); end loop; end $$;
vacuum pg_class;
vacuum (freeze) pg_attribute;
