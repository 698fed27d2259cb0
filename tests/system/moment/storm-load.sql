\set k random(1, 6)
\set u random(1, 400)
begin;
select n from shared_rows where id = :k for key share;
savepoint a;
update shared_rows set n = n + 1 where id = :k + 20;
select n from shared_rows where id = :k + 40 for share;
\sleep 2 ms
end;
insert into upsert values (:u, 1) on conflict (k) do update set n = upsert.n + 1;
