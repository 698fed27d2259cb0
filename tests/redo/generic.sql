-- Generic WAL: bloom indexes, built, filled one by one, and vacuumed.
create extension bloom;
create table blooming (a int, b int);
insert into blooming select g, g % 100 from generate_series(1, 3000) g;
create index blooming_idx on blooming using bloom (a, b);
insert into blooming select g, g % 100 from generate_series(1, 3000) g;
delete from blooming where b < 50;
vacuum blooming;
insert into blooming select g, g from generate_series(1, 500) g;
