-- Sequences: made, advanced past what was logged ahead, set, restarted, without cache and with, and serial columns.
create sequence counter;
select nextval('counter') from generate_series(1, 100);
select setval('counter', 1000);
alter sequence counter restart with 5 increment by 3;
create sequence cached cache 20 maxvalue 100 cycle;
select nextval('cached') from generate_series(1, 300);
create table serials (id bigserial, n int);
insert into serials (n) select g from generate_series(1, 100) g;
truncate serials restart identity;
