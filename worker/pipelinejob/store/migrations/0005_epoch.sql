-- Which operator may write: the one that took the newest epoch. A laptop has none and asks nothing.

CREATE TABLE pipelinejob.epoch (only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), number bigint NOT NULL);
INSERT INTO pipelinejob.epoch (number) VALUES (0);

-- First in each transaction of an operator. The row stays locked until its end, so that a newer epoch waits for what an older
-- one has begun; the time limit ends what a stopped process has begun and will not finish.
CREATE FUNCTION pipelinejob.check_epoch(p_epoch bigint) RETURNS void LANGUAGE plpgsql SET search_path = pipelinejob, pg_temp AS $$
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', '10000', true);
    PERFORM FROM epoch WHERE number = p_epoch FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % is over', p_epoch USING ERRCODE = 'PLJ01';
    END IF;
END
$$;
