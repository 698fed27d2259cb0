create database crowded;
create database moving;
create table subs (a int, b int);
create table pairs_log (a int);
create table moved (a int primary key); insert into moved select generate_series(1, 1000);
create table copied (a int);
create table upsert (k int primary key, n int);
create table shared_rows (id int primary key, n int); insert into shared_rows select g, 0 from generate_series(1, 60) g;
select pg_replication_origin_create('standing');
select pg_replication_origin_advance('standing', '0/77');
-- Catalogs that are written anew are logged for it too.
select pg_create_logical_replication_slot('reader', 'pgoutput') where current_setting('wal_level') = 'logical';
\c crowded
create table crowd (a int primary key, b text); insert into crowd select g, 'b' || g from generate_series(1, 400) g;
alter table crowd drop constraint crowd_pkey;
create unlogged table crowd_fleeting (a int primary key);
vacuum crowd;
\c moving
create table place (a int, b text);
