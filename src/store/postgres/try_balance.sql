-- try_balance: adds 1 to a balance twice, each time to what it was before, and rolls that back
-- before it returns. Over a view with a trigger this is what two writers at once do: a trigger that
-- applies the difference ends at 2 more, one that writes the new value ends at 1 more and loses a
-- refund. $1: account. $2: bucket. One row: how many rows were hit, and by how much the balance
-- moved.
SELECT hit, coalesce(least(greatest(moved, -1), 3), 0)::bigint AS moved
FROM makegood_try_balance(jsonb_build_object('account_id', $1::text, 'bucket', $2::text))
